/* SPDX-License-Identifier: GPL-2.0 */
/* The way of most packets: IPv4 with TCP or UDP, no options, no fragment, no tag in the frame, to a megaflow that the cache has and that
 * sends the packet on, with or without a struct edit, or drops it. It is parsed, found and sent in registers, by the first program; only
 * fields are rewritten by another one at TC.
 *
 * The packet that came last, once more, is not even parsed: the bytes that its key is made of are compared (struct repeated).
 *
 * Whatever is another way is left to the other programs, which do the same with any packet: this one never decides differently, it only
 * decides sooner. It leaves them what it has found out.
 */
#pragma once

/* Two halves of what lies together in memory, the first at the lower address. */
static __always_inline u64 join32(u32 first, u32 second)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return first | (u64)second << 32;
#else
	return (u64)first << 32 | second;
#endif
}

static __always_inline u32 join16(u16 first, u16 second)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return first | (u32)second << 16;
#else
	return (u32)first << 16 | second;
#endif
}

static __always_inline u16 join8(u8 first, u8 second)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return first | (u16)second << 8;
#else
	return (u16)first << 8 | second;
#endif
}

/* Out of a word of the key again: halves, and a byte by its place. */
static __always_inline u32 first32(u64 word)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return word;
#else
	return word >> 32;
#endif
}

static __always_inline u32 second32(u64 word)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return word >> 32;
#else
	return word;
#endif
}

static __always_inline u8 byte_of(u64 word, u32 place)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return word >> 8 * place;
#else
	return word >> 8 * (7 - place);
#endif
}

#define TTL_BYTE 4 /* of word 6 */
#define PROTO_BYTE 5
#define TOS_BYTE 7

/* The words of a common packet's key. */
struct common {
	u64 w3, w4, w5, w6, w9, w11;
};

/* False for packets of any other kind. `in_port` and `vlan_tci` are as in the key. */
static __always_inline int parse_common(struct common *c, void *data, void *end, u32 in_port, u16 vlan_tci)
{
	struct eth_header *eth = data;
	struct ipv4_header *ip = data + sizeof(*eth);
	void *l4 = data + sizeof(*eth) + sizeof(*ip);
	u32 layers = LAYER_IPV4 | LAYER_UDP;

	if (l4 + 8 > end || eth->type != bpf_htons(ETHERTYPE_IPV4) || ip->version_ihl != 0x45 || ip->fragment & bpf_htons(0x3fff))
		return 0;
	c->w11 = 0;
	if (ip->proto == PROTO_TCP) {
		if (l4 + 20 > end)
			return 0;
		c->w11 = join32(0, join16(*(u16 *)(l4 + 12) & bpf_htons(0x0fff), 0));
		layers = LAYER_IPV4 | LAYER_TCP;
	} else if (ip->proto != PROTO_UDP) {
		return 0;
	}
	c->w3 = join32(in_port, join16(vlan_tci, 0));
	c->w4 = *(u64 *)data;
	c->w5 = join32(*(u32 *)(data + 8), join16(bpf_htons(ETHERTYPE_IPV4), bpf_htons(layers)));
	c->w6 = join32(*(u32 *)l4, join16(*(u16 *)&ip->ttl, join8(FRAGMENT_NONE, ip->tos))); /* ports, TTL and protocol, TOS */
	c->w9 = *(u64 *)(data + sizeof(*eth) + 12); /* both addresses */
	return 1;
}

/* Of bytes 16 to 23 and 40 to 47 of a frame, the bits that keys depend on: of the fragment all but "don't fragment", TTL and protocol; of
 * TCP the flags. */
#define REPEATED_16 join32(0, join16(bpf_htons(0x3fff), 0xffff))
#define REPEATED_40_TCP join32(0, join16(0, bpf_htons(0x0fff)))
#define REPEATED_BYTES 54

/* Whether the packet is the one that has been repeated. Addresses come first, by which most others differ. */
static __always_inline int is_repeated(const struct repeated *r, void *data, void *end, u32 in_port, u16 vlan_tci)
{
	if (data + REPEATED_BYTES > end || *(u64 *)(data + 26) != r->bytes_26)
		return 0;
	return !((r->word_3 ^ join32(in_port, join16(vlan_tci, 0))) | (r->bytes_0 ^ *(u64 *)data) | (r->bytes_8 ^ *(u64 *)(data + 8)) |
		 (r->bytes_16 ^ (*(u64 *)(data + 16) & REPEATED_16)) | (r->bytes_30 ^ *(u64 *)(data + 30)) |
		 (r->bytes_40 ^ (*(u64 *)(data + 40) & r->mask_40)));
}

/* A packet has been looked up and found. The second of a burst is what the others are compared with. */
static __always_inline void remember(struct repeated *r, const struct common *c, void *data, void *end, u32 slot, u32 hint)
{
	struct ipv4_header *ip = data + sizeof(struct eth_header);

	if (r->hint != hint || data + REPEATED_BYTES > end) {
		r->hint = hint;
		return;
	}
	r->word_3 = c->w3;
	r->bytes_0 = c->w4;
	r->bytes_8 = *(u64 *)(data + 8);
	r->bytes_16 = *(u64 *)(data + 16) & REPEATED_16;
	r->bytes_26 = c->w9;
	r->bytes_30 = *(u64 *)(data + 30);
	r->mask_40 = ip->proto == PROTO_TCP ? REPEATED_40_TCP : 0;
	r->bytes_40 = *(u64 *)(data + 40) & r->mask_40;
	r->word_5 = c->w5;
	r->word_6 = c->w6;
	r->word_11 = c->w11;
	r->slot = slot + 1;
}

/* What parse_common made of it. */
static __always_inline void recall(struct common *c, const struct repeated *r)
{
	c->w3 = r->word_3;
	c->w4 = r->bytes_0;
	c->w5 = r->word_5;
	c->w6 = r->word_6;
	c->w9 = r->bytes_26;
	c->w11 = r->word_11;
}

/* hash_hint and differ of lookup.h for it. */
static __always_inline u64 common_hint(const struct common *c)
{
	return (c->w3 + c->w5) * HASH_5 + (c->w4 + c->w6) * HASH_6 + c->w9 * HASH_9;
}

static __always_inline u64 common_differ(const struct common *c, const struct subtable *subtable, const struct megaflow *megaflow)
{
#define DIFF(n, place) ((c->w##n & subtable->place) ^ megaflow->place)
	return COMMON_TERMS(DIFF, |); /* and MEGAFLOW_WIDE, which is looked at where it may be */
#undef DIFF
}

/* What `parse` would have made of it. */
static __always_inline void leave_parsed(struct packet *p, const struct common *c)
{
	u64 *w = p->key.w;

	w[0] = w[1] = w[2] = w[7] = w[8] = w[10] = w[12] = w[13] = w[14] = w[15] = 0;
	w[3] = c->w3;
	w[4] = c->w4;
	w[5] = c->w5;
	w[6] = c->w6;
	w[9] = c->w9;
	w[11] = c->w11;
	p->network = ETH_HEADER_BYTES;
	p->l4 = sizeof(struct ipv4_header);
	p->next_header = 9;
	p->nd_sll = p->nd_tll = p->cut = p->frame_tags = 0;
}

#include "edit.h"

enum express {
	EXPRESS_NO,   /* parse it, look it up */
	EXPRESS_PARSED,
	EXPRESS_FOUND, /* parsed, and p->found */
	EXPRESS_EDIT,  /* likewise, and it is edited, at TC, where to write is to make sure first that the packet is nobody else's */
};

/* 0 if nothing speaks against sending so many bytes there; if something does, it takes more to know what becomes of the packet: a tunnel,
 * too. No port is at place 0, whose flags are none. */
static __always_inline u32 hindrances(struct hook hook, const struct port *port, u32 out, u64 bytes)
{
	u32 needed = hook.tc ? PORT_FORWARD : PORT_FORWARD | PORT_XDP_TRANSMIT;
#ifdef TEST_RUN
	return !out || port->flags & PORT_TUNNEL;
#endif
	if (!hook.tc && bytes > port->longest)
		return 1;
	return (port->flags ^ needed) & (needed | PORT_TUNNEL);
}

/* The last of a packet that came in on the port at `number`. It begins with `first` now, and is `longer` than it came. */
static __always_inline void send_direct(struct hook hook, const struct port *port, u64 first, u32 out, u32 number, u32 cpu, u64 bytes,
					s64 longer, struct verdict *v)
{
	int drop = hook.tc ? TC_ACT_SHOT : XDP_DROP;
#ifdef TEST_RUN
	verdict(v, FATE_FORWARDED, 0, test_output(OP_FORWARD, out) ? TEST_STOPPED : drop);
	count(number, cpu, bytes, hook, v);
	return;
#endif
	int code = hook.tc ? put_out(hook.skb, port, first) : xdp_ports.redirect_map(out, 0);
	if (code != (hook.tc ? TC_ACT_REDIRECT : XDP_REDIRECT)) {
		verdict(v, FATE_DROPPED, DROP_REDIRECT_FAILED, drop);
		count(number, cpu, bytes, hook, v);
		return;
	}
	count_sent(out, cpu, bytes + longer);
	verdict(v, FATE_FORWARDED, 0, code);
	count(number, cpu, bytes, hook, v);
}

/* Writes what a megaflow makes of the packet, in the frame of XDP, whose bounds have been checked up to layer 4. Less than 0 if it is not
 * whole, which cannot be. */
static __always_inline int edit_frame(struct common *c, void *data, void *end, const struct edit *edit, u32 ttl_taken)
{
	void *l4 = data + sizeof(struct eth_header) + sizeof(struct ipv4_header);
	struct common new = *c;

	edit_words(&new, edit, ttl_taken);
	struct differences d = differences(c, &new, edit, ttl_taken);
	write_common(data, &new);
	u8 proto = byte_of(c->w6, PROTO_BYTE);
	*c = new;
	if (d.ipv4) {
		u16 *sum = l4 - 10;
		*sum = replaced_sum(*sum, d.ipv4);
	}
	if (!(d.l4 | d.pseudo))
		return 0;
	if (proto == PROTO_UDP) {
		u16 *sum = l4 + 6;
		if (*sum) {
			u16 replaced = replaced_sum(*sum, d.l4 + d.pseudo);
			*sum = replaced ? replaced : 0xffff;
		}
		return 0;
	}
	if (l4 + 20 > end)
		return -1;
	u16 *sum = l4 + 16;
	*sum = replaced_sum(*sum, d.l4 + d.pseudo);
	return 0;
}

/* Pushes a tag, or takes off the one that is beside the packet, if `vlan_tci` says so; there is none in its frame. It is `longer` then.
 * Less than 0 if that cannot be. */
static __always_inline int retag_express(struct common *c, struct hook hook, const struct edit *edit, u16 vlan_tci, s64 *longer)
{
	if (edit->retag == RETAG_PUSH) {
		*longer = VLAN_TAG_BYTES;
		c->w3 = join32(first32(c->w3), join16(key_tci(edit->tci), vlan_tci));
		return hook.tc ? bpf_skb_vlan_push(hook.skb, bpf_htons(edit->tpid), edit->tci) : push_frame_tag(hook, edit->tpid, edit->tci);
	}
	if (!vlan_tci)
		return 0;
	*longer = -VLAN_TAG_BYTES;
	c->w3 = join32(first32(c->w3), 0);
	return bpf_skb_vlan_pop(hook.skb);
}

/* Sends a packet of a megaflow that does nothing else, if nothing speaks against it. */
static __always_inline int send_if_direct(struct hook hook, const struct megaflow *megaflow, u32 slot, u64 first, u64 tcp_flags, u32 number,
					  u32 cpu, u64 bytes, struct verdict *v)
{
	u32 out = megaflow->xdp_port;
	const struct port *port = ports_at(out);

	if ((megaflow->flags & (MEGAFLOW_DIRECT | MEGAFLOW_GATED)) != MEGAFLOW_DIRECT || !port || hindrances(hook, port, out, bytes))
		return 0;
	count_slot(slot, cpu, bytes, tcp_flags);
	send_direct(hook, port, first, out, number, cpu, bytes, 0, v);
	return 1;
}

/* What a packet's megaflow, the one in `slot`, does with it. 0 if it is left to others; `way` has said what for. */
static __always_inline int express_act(struct hook hook, struct common *c, void *data, void *end, const struct megaflow *megaflow, u32 slot,
				       u32 number, u32 cpu, u64 bytes, u16 vlan_tci, volatile u32 *way, struct verdict *v)
{
	int drop = hook.tc ? TC_ACT_SHOT : XDP_DROP, failed = 0;
	s64 longer = 0;
	u32 flags = megaflow->flags, out = megaflow->xdp_port;
	const struct port *port = ports_at(out);

	if (!port) {
		*way = EXPRESS_PARSED;
		return 0;
	}
	if ((flags & (MEGAFLOW_DIRECT | MEGAFLOW_GATED)) == MEGAFLOW_DIRECT) {
		if (!hindrances(hook, port, out, bytes)) {
			count_slot(slot, cpu, bytes, c->w11);
			send_direct(hook, port, c->w4, out, number, cpu, bytes, 0, v);
			return 1;
		}
		if (out) {
			*way = EXPRESS_FOUND;
			return 0;
		}
		count_slot(slot, cpu, bytes, c->w11);
		verdict(v, FATE_DROPPED, DROP_NO_ACTION, drop);
		count(number, cpu, bytes, hook, v);
		return 1;
	}
	if (flags & MEGAFLOW_WIDE) {
		*way = EXPRESS_PARSED;
		return 0;
	}
	*way = EXPRESS_FOUND;
	if (!(flags & (MEGAFLOW_EDITS | MEGAFLOW_RETAGS)) || flags & MEGAFLOW_GATED ||
	    hindrances(hook, port, out, bytes + megaflow->growth) || byte_of(c->w6, TTL_BYTE) <= megaflow->ttl_needed)
		return 0;
	if (hook.tc && flags & MEGAFLOW_EDITS) {
		*way = EXPRESS_EDIT;
		return 0;
	}
	struct megaflow_body *body = megaflow_bodies_at(slot);
	if (!body)
		return 0;
	opaque(body); /* or it would be found by the slot's number again, whose bounds kernel 6.1 does not see there */
	count_slot(slot, cpu, bytes, c->w11);
	if (flags & MEGAFLOW_EDITS)
		failed = edit_frame(c, data, end, edit_of(body), megaflow->ttl_needed) < 0;
	if (flags & MEGAFLOW_RETAGS)
		failed |= retag_express(c, hook, edit_of(body), vlan_tci, &longer) < 0;
	if (failed) {
		verdict(v, FATE_DROPPED, DROP_REWRITE_FAILED, drop);
		count(number, cpu, bytes, hook, v);
	} else {
		send_direct(hook, port, c->w4, out, number, cpu, bytes, longer, v);
	}
	return 1;
}

/* The megaflow in a slot, while one is there. */
static __always_inline struct megaflow *live_megaflow(u32 slot)
{
	struct megaflow *megaflow = megaflows_at(slot);

	if (!megaflow)
		return NULL;
	opaque(megaflow); /* one address, in a register: the compiler would reckon it anew */
	return *(volatile u32 *)&megaflow->subtable == NO_SUBTABLE ? NULL : megaflow;
}

/* The packet's, if the cache has it. */
static __always_inline struct megaflow *cached_megaflow(const struct common *c, u32 cpu, u32 *slot, struct repeated *last, void *data,
							void *end)
{
	u64 hint = common_hint(c);
	struct cache_set *set = cache_set(hint, cpu);

	*slot = set ? cached_slot(set, hint) : NO_SLOT;
	struct megaflow *megaflow = megaflows_at(*slot);
	if (!megaflow)
		return NULL;
	opaque(megaflow); /* as above */
	struct subtable *subtable = subtables_at(*(volatile u32 *)&megaflow->subtable);
	if (!subtable || common_differ(c, subtable, megaflow))
		return NULL;
	remember(last, c, data, end, *slot, hint >> 32);
	return megaflow;
}

/* Whether the packet is done with; if not, `way` says what is left to do. `in` is a port that may be received from. */
static __always_inline int express(struct hook hook, void *data, void *end, const struct ingress *in, u32 cpu, u64 bytes, u16 vlan_tci,
				   volatile u32 *way, struct verdict *v)
{
	struct common c;
	struct megaflow *megaflow = NULL;
	struct repeated *last = repeated_at(cpu);
	u32 slot;
	int done = 0;

	if (!last) { /* cannot be */
		*way = EXPRESS_NO;
		return 0;
	}
	opaque(last); /* one address, in a register */
	if (is_repeated(last, data, end, in->in_port, vlan_tci)) {
		slot = last->slot - 1;
		megaflow = live_megaflow(slot);
#ifndef TEST_RUN /* which has more to note */
		if (megaflow && send_if_direct(hook, megaflow, slot, last->bytes_0, last->word_11, in->place, cpu, bytes, v))
			return 1;
#endif
		recall(&c, last);
	}
	if (!megaflow) {
		if (!parse_common(&c, data, end, in->in_port, vlan_tci)) {
			*way = EXPRESS_NO;
			return 0;
		}
		megaflow = cached_megaflow(&c, cpu, &slot, last, data, end);
	}
	if (megaflow)
		done = express_act(hook, &c, data, end, megaflow, slot, in->place, cpu, bytes, vlan_tci, way, v);
	else
		*way = EXPRESS_PARSED;
#ifndef TEST_RUN
	if (done)
		return 1;
#endif
	struct packet *p = scratch.lookup(&cpu);
	if (!p)
		return done;
	leave_parsed(p, &c);
	p->found = !done && *way == EXPRESS_PARSED ? 0 : slot + 1;
#ifdef TEST_RUN
	if (done) {
		p->metadata_tag = p->key.f.vlan_tci ? 1 : 0;
		note_run(p, hook, v);
	}
#endif
	return done;
}

/* The words that an edit changes, from the key and back. */
static __always_inline void take_words(struct common *c, const struct packet *p)
{
	c->w4 = p->key.w[4];
	c->w5 = p->key.w[5];
	c->w6 = p->key.w[6];
	c->w9 = p->key.w[9];
}

static __always_inline void put_words(struct packet *p, const struct common *c)
{
	p->key.w[4] = c->w4;
	p->key.w[5] = c->w5;
	p->key.w[6] = c->w6;
	p->key.w[9] = c->w9;
}
