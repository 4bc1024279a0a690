/* SPDX-License-Identifier: GPL-2.0 */
/* Sending a packet to the slow path, whole.
 *
 * The queue to the slow path is shared out fairly: a port may fill a quarter of what the others leave of it. So one port that floods
 * gets a fifth, two get a sixth each, and there is always room for those that are quiet. What is taken out of the queue may be
 * filled again, so that the slow path itself sets the pace, and no rate has to be guessed.
 */
#pragma once

#define UPCALL_SMALL 256
#define UPCALL_MEDIUM 2048
#define UPCALL_LARGE (65536 + 256) /* the longest segmentation-offload frame that IP's header has a length for, with its headers */
#define UPCALL_BIG (3 * 65536 + 256) /* BIG TCP: appliance/ports/big_tcp.py */
#define UPCALL_LONGEST (8 * 65536 + 256) /* the kernel's GSO_MAX_SIZE */

#define UPCALL_UNITS (UPCALL_PAGES * 4096 / UPCALL_UNIT)
#define UNITS(bytes) ((sizeof(struct upcall) + (bytes) + UPCALL_UNIT - 1) / UPCALL_UNIT)
#define PORT_SHARE 4 /* one part in this many of what is left */
#define PUNTED -1

/* Packets of one flow have one, as long as nothing changes their headers: addresses and ports decide. */
static __always_inline u32 line_of(const struct packet *p)
{
	const u64 *w = p->key.w;
	u64 hash = (w[4] + *(const u32 *)&p->key.f.l4_src) * HASH_6 + w[9] * HASH_9 + (w[8] + w[10]) * HASH_8;

	opaque(hash); /* LLVM 18 would leave bits that do not count out of the constants, in whose place nothing could be put then */
	return hash >> 40 & (LINES - 1);
}

/* Whether there may be packets of its flow in the slow path. */
static __always_inline int is_in_line(const struct packet *p)
{
	u32 number = line_of(p);
	struct line *line = lines.lookup(&number);

	return line && *(volatile u32 *)&line->taken != *(volatile u32 *)&line->served;
}

static __always_inline void fill_upcall(struct upcall *u, struct packet *p, struct hook hook, u32 reason, u64 megaflow)
{
	u->key = p->key.f;
	u->megaflow = megaflow;
	u->in_port = number_at(p->number);
	u->bytes = p->bytes;
	u->reason = reason;
	u->length = hook.skb->len;
	u->gso_size = hook.skb->gso_size;
	u->vlan_present = hook.skb->vlan_present;
	u->vlan_tpid = bpf_ntohs((u16)hook.skb->vlan_proto);
	u->vlan_tci = hook.skb->vlan_tci;
}

/* What the key does not say of a packet that is parsed again. */
static __always_inline void fill_came(struct upcall *u, const struct packet *p)
{
	u32 *came = (u32 *)&u->cookie;

	came[0] = p->tun_src;
	came[1] = p->tun_dst;
}

/* What OP_CONTROLLER says of the packet-in. */
static __always_inline void fill_copy(struct upcall *u, const struct packet *p, const struct op *op)
{
	u32 *metadata = (u32 *)&u->key.metadata;

	u->cookie = p->operand[0];
	metadata[0] = ((const u32 *)p->operand)[2];
	metadata[1] = op->arg32;
	u->table = ((const u8 *)p->operand)[12];
	u->packet_in_reason = op->arg8;
	u->line = op->arg16;
}

static __always_inline u32 in_queue(const struct upcall_share *share)
{
	return *(volatile u32 *)&share->taken - *(volatile u32 *)&share->served;
}

/* Whether a port that fills `own` may take so many more units. One packet it always may. */
static __always_inline int has_share(u32 own, u32 all, u32 units)
{
	return !own || (all < UPCALL_UNITS && own + units <= (UPCALL_UNITS - all) / PORT_SHARE);
}

/* PUNTED, or why not. `copied`, if not NULL, is the op that does it. A ring buffer's record must have a size that the verifier knows:
 * there are five of them. */
static __always_inline int punt(struct packet *p, struct hook hook, u32 reason, u64 megaflow, const struct op *copied)
{
	struct upcall *u;
	u64 length = hook.skb->len; /* 64 bits, so that it is compared and used in one register, whose range the verifier knows */

	opaque(length);
	if (length > UPCALL_LONGEST)
		return DROP_UPCALL_FULL;
	u32 zero = 0, number = p->number, units = length <= UPCALL_SMALL ? UNITS(UPCALL_SMALL) :
						  length <= UPCALL_MEDIUM ? UNITS(UPCALL_MEDIUM) :
						  length <= UPCALL_LARGE ? UNITS(UPCALL_LARGE) :
						  length <= UPCALL_BIG ? UNITS(UPCALL_BIG) : UNITS(UPCALL_LONGEST);
	struct upcall_share *own = upcall_shares.lookup(&number), *all = upcall_shares.lookup(&zero);
	u32 place = line_of(p);
	struct line *line = lines.lookup(&place);
	if (!own || !all || !line)
		return DROP_UPCALL_FULL;
	if (!has_share(in_queue(own), in_queue(all), units))
		return DROP_UPCALL_SHARE;
	opaque(length);
	u64 room = UPCALL_SMALL;
	if (length <= UPCALL_SMALL) {
		u = upcalls.ringbuf_reserve(sizeof(struct upcall) + UPCALL_SMALL);
	} else if (length <= UPCALL_MEDIUM) {
		room = UPCALL_MEDIUM;
		u = upcalls.ringbuf_reserve(sizeof(struct upcall) + UPCALL_MEDIUM);
	} else if (length <= UPCALL_LARGE) {
		room = UPCALL_LARGE;
		u = upcalls.ringbuf_reserve(sizeof(struct upcall) + UPCALL_LARGE);
	} else if (length <= UPCALL_BIG) {
		room = UPCALL_BIG;
		u = upcalls.ringbuf_reserve(sizeof(struct upcall) + UPCALL_BIG);
	} else {
		room = UPCALL_LONGEST;
		u = upcalls.ringbuf_reserve(sizeof(struct upcall) + UPCALL_LONGEST);
	}
	if (!u)
		return DROP_UPCALL_FULL;
	fill_upcall(u, p, hook, reason, megaflow);
	if (copied) {
		fill_copy(u, p, copied);
	} else {
		fill_came(u, p);
		u->line = place;
	}
	opaque(length); /* or the compiler makes one comparison of these bounds and the others, and kernel 6.1 does not see them */
	if (length > room || length < ETH_HEADER_BYTES || bpf_skb_load_bytes(hook.skb, 0, u + 1, length) < 0) {
		upcalls.ringbuf_discard(u, 0);
		return DROP_UPCALL_FULL;
	}
	__sync_fetch_and_add(&own->taken, units);
	__sync_fetch_and_add(&all->taken, units);
	if (!copied)
		__sync_fetch_and_add(&line->taken, 1);
	upcalls.ringbuf_submit(u, 0);
	return PUNTED;
}
