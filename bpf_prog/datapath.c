/* SPDX-License-Identifier: GPL-2.0 */
/* The fast path: one source for both hooks. Every packet of a port: parse → look up → act, and one exit that counts.
 *
 * The loader puts the headers in here by text, because BCC rewrites map calls in the main file only.
 */
#include "abi.h"
#include "common.h"
#include "maps.h"
#include "parse.h"
#include "lookup.h"
#include "rewrite.h"
#include "mpls.h"
#include "clone.h"
#include "select.h"
#include "meter.h"
#include "tunnel.h"
#include "actions.h"
#include "upcall.h"

/* NULL if the interface is no port's. */
static __always_inline const struct ingress *ingress_of(u32 ifindex)
{
	struct ingress *in = small_ifindex_at(ifindex);

	return in ? in : large_ifindex.lookup(&ifindex);
}

/* Every packet that is not passed on is counted here, once. */
static __always_inline void count(u32 number, u32 cpu, u64 bytes, struct hook hook, const struct verdict *v)
{
	struct port_counters *counters = port_counters_at(number + (u64)cpu * PORT_PLACES);

	if (!counters)
		return;
	counters->rx_bytes += bytes;
	if (v->fate == FATE_FORWARDED) {
		if (hook.tc)
			counters->forwarded_tc++;
		else
			counters->forwarded_xdp++;
	} else if (v->fate == FATE_PUNTED) {
		counters->punted++;
	} else {
		counters->dropped++;
		u32 reason = v->reason + cpu * DROP_REASONS;
		u64 *dropped = drops.lookup(&reason);
		if (dropped)
			(*dropped)++;
	}
}

#ifdef TEST_RUN
static __always_inline void note_run(struct packet *p, struct hook hook, const struct verdict *v)
{
	u32 zero = 0;
	struct test_run *run = test_run.lookup(&zero);
	if (run)
		run->key = p->key.f;
	/* The test sees the frame only: put the tag there, under one that it does not see. */
	if (hook.tc && v->code == TEST_STOPPED && p->metadata_tag)
		bpf_skb_vlan_push(hook.skb, bpf_htons(ETHERTYPE_VLAN), 0);
}
#endif

/* The one exit. */
static __always_inline int finish(struct packet *p, struct hook hook, const struct verdict *v)
{
	if (v->fate != FATE_PASSED)
		count(p->number, p->cpu, p->bytes, hook, v);
#ifdef TEST_RUN
	note_run(p, hook, v);
#endif
	return v->code;
}

/* Whether a packet of this megaflow must wait in line behind those that are still in the slow path. */
static __always_inline int waits_in_line(struct megaflow *megaflow, struct megaflow_body *body)
{
	if (!(megaflow->flags & MEGAFLOW_GATED))
		return 0;
	u32 waiting = *(volatile u32 *)&body->ticket - *(volatile u32 *)&body->served;
	if (!waiting)
		return 0;
	if (waiting > MAX_WAITING) {
		/* Faster than the slow path: it would never catch up, and the ring would overflow. Rather a few packets out of order. */
		megaflow->flags &= ~MEGAFLOW_GATED;
		return 0;
	}
	__sync_fetch_and_add(&body->ticket, 1);
	return 1;
}

/* A packet whose TTL the megaflow's actions would use up: the slow path knows what becomes of it. One that has none may get one, of 0. */
static __always_inline int short_of_ttl(struct packet *p, const struct megaflow *megaflow)
{
	u32 needed = megaflow->ttl_needed, ttl = p->key.f.ip_ttl;

	if (!needed)
		return 0;
	if (LAYER_IS(p, LAYER_MPLS)) {
		ttl = bpf_ntohl(p->key.f.mpls) & ENTRY_TTL;
		needed >>= 5;
	} else if (!LAYER_IS(p, LAYER_IPV4 | LAYER_IPV6)) {
		needed >>= 10;
	}
	needed &= 0x1f;
	return needed && ttl <= needed;
}

/* Whether XDP can send so many bytes there; 0 is nowhere. */
static __always_inline int reaches_by_xdp(u32 out, u32 bytes)
{
#ifndef TEST_RUN
	struct port *port = ports_at(out);
	if (out && (!port || !(port->flags & PORT_XDP_TRANSMIT) || bytes > port->longest))
		return 0;
#endif
	return 1;
}

/* Whether XDP can do all of it. What it cannot, TC behind it does. */
static __always_inline int fits_xdp(struct packet *p, const struct megaflow *megaflow, u32 flags)
{
	if (!(flags & MEGAFLOW_XDP) || flags & (MEGAFLOW_PUNT | MEGAFLOW_GATED | MEGAFLOW_METERED) || short_of_ttl(p, megaflow))
		return 0;
	return reaches_by_xdp(megaflow->xdp_port, p->length + megaflow->growth);
}

/* Whether the slow path has to execute for this packet what eBPF does for others. */
static __always_inline int must_punt(struct packet *p, struct hook hook, u32 flags)
{
	if (flags & MEGAFLOW_POPS && is_vlan(p->key.f.eth_type))
		return 1;
	return flags & MEGAFLOW_PUSHES_MPLS && hook.tc && p->frame_tags && hook.skb->gso_size;
}

#define NOT_PUNTED -1

/* Why the slow path gets the packet, or NOT_PUNTED. */
static __always_inline int why_punt(struct packet *p, struct megaflow *megaflow, struct megaflow_body *body, u32 flags)
{
	if (!megaflow || !body)
		return UPCALL_MISS;
	if (flags & MEGAFLOW_PUNT)
		return UPCALL_ACTION;
	if (short_of_ttl(p, megaflow))
		return UPCALL_TTL;
	/* Last: a packet that is punted anyway must not draw a ticket. */
	return waits_in_line(megaflow, body) ? UPCALL_CATCHING_UP : NOT_PUNTED;
}

/* Before a megaflow's ops. */
static __always_inline void begin(struct packet *p, u32 slot)
{
	p->slot = slot;
	p->layers = p->key.f.layers;
	forget_changes(p);
	if (p->again)
		return;
	p->sent = 0;
	p->tun_src = p->key.f.tun_src;
	p->tun_dst = p->key.f.tun_dst;
}

static __always_inline void send_up(struct packet *p, struct hook hook, u32 reason, u64 megaflow, struct verdict *v)
{
	int refused = punt(p, hook, reason, megaflow, NULL);

	if (refused == PUNTED)
		verdict(v, FATE_PUNTED, 0, TC_ACT_STOLEN);
	else
		verdict(v, FATE_DROPPED, refused, TC_ACT_SHOT);
}

static __always_inline void handle(struct packet *p, struct hook hook, struct verdict *v)
{
	int drop = hook.tc ? TC_ACT_SHOT : XDP_DROP;

	if (!p->number) {
		verdict(v, FATE_DROPPED, DROP_NOT_A_PORT, drop);
		return;
	}
	if (!(p->port_flags & PORT_RECEIVE)) {
		verdict(v, FATE_DROPPED, DROP_NO_RECV, drop);
		return;
	}
	p->key.f.in_port = bpf_htonl(p->again ? p->again : number_at(p->number));

	if (!p->found)
		lookup(p);
	/* Read back, so that the verifier takes it as unknown whichever way it was found. */
	u32 slot = *(volatile u32 *)&p->found - 1;
	struct megaflow *megaflow = megaflows_at(slot);
	struct megaflow_body *body = megaflow_bodies_at(slot);
	u32 flags = megaflow ? megaflow->flags : 0;
	if (flags & (MEGAFLOW_POPS | MEGAFLOW_PUSHES_MPLS) && must_punt(p, hook, flags))
		flags |= MEGAFLOW_PUNT;

	if (!hook.tc) {
		if (!megaflow || !body || !fits_xdp(p, megaflow, flags)) {
			verdict(v, FATE_PASSED, 0, XDP_PASS);
			return;
		}
	} else {
		int reason = why_punt(p, megaflow, body, flags);
		if (flags & MEGAFLOW_METERED && (reason == NOT_PUNTED || reason == UPCALL_ACTION)) {
			p->slot = slot;
			p->punted = reason == UPCALL_ACTION;
			tc_programs.call(hook.skb, PROGRAM_METER);
			verdict(v, FATE_DROPPED, DROP_REDIRECT_FAILED, drop); /* the call does not return */
			return;
		}
		if (!body || reason != NOT_PUNTED) {
			send_up(p, hook, reason, body ? body->id : 0, v);
			return;
		}
	}
	count_megaflow(p, slot);
	begin(p, slot);
	execute(p, hook, body, 0, v);
}

#include "express.h"

static __always_inline struct packet *scratch_packet(void)
{
	u32 cpu = bpf_get_smp_processor_id();
	return scratch.lookup(&cpu);
}

/* The packet as it came, but for what parsing gives. NULL cannot be. */
static __always_inline struct packet *new_packet(u32 cpu, const struct ingress *in, u32 length, u32 metadata_tag)
{
	struct packet *p = scratch.lookup(&cpu);
	if (!p)
		return NULL;
	p->cpu = cpu;
	p->number = in ? in->place : 0;
	p->port_flags = in ? in->flags : 0;
	p->length = length;
	p->metadata_tag = metadata_tag;
	p->bytes = length + metadata_tag * VLAN_TAG_BYTES;
	p->again = 0;
	return p;
}

/* `tag` is that in metadata, as in the key. */
static __always_inline int parse_at_tc(struct packet *p, struct __sk_buff *skb, u32 tag)
{
	int whole = 0;

	no_unroll for (int attempt = 0; attempt < 2; attempt++) {
		void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
		whole = parse(p, data, end, tag);
		/* A header that is not in the linear part of the packet: fetch it, once. */
		if (attempt || (whole && !p->cut) || data + p->length <= end)
			break;
		if (bpf_skb_pull_data(skb, min_u32(p->length, MAX_HEADER_BYTES + MAX_VLAN_TAGS * VLAN_TAG_BYTES)) < 0)
			break;
	}
	return whole;
}

int ofswitch_tc(struct __sk_buff *skb)
{
	struct hook hook = {.tc = 1, .skb = skb};
	struct verdict v;
	u32 cpu = bpf_get_smp_processor_id();

#ifdef TEST_RUN
	u32 zero = 0;
	struct test_run *run = test_run.lookup(&zero);
	if (run && run->network_tag) {
		/* As the kernel does before TC: the outermost tag leaves the frame. */
		u16 tag[2];
		if (bpf_skb_load_bytes(skb, 12, tag, 4) < 0 || !is_vlan(tag[0]))
			return TC_ACT_SHOT;
		if (bpf_skb_vlan_pop(skb) < 0 || bpf_skb_vlan_push(skb, tag[0], bpf_ntohs(tag[1])) < 0)
			return TC_ACT_SHOT;
	}
	if (run && run->tunneled) {
		struct tunnel_key key = {.id = run->tunnel_id, .remote = {run->tun_dst}, .local = {run->tun_src}};
		if (bpf_skb_set_tunnel_key(skb, (void *)&key, sizeof(key), 0) < 0)
			return TC_ACT_SHOT;
	}
#endif
	const struct ingress *in = ingress_of(skb->ifindex);
	volatile u32 way; /* in memory, and written where the express way ends early: most packets are to pay nothing for it */
	u64 bytes = skb->len;
	u32 tag = 0;
	if (skb->vlan_present) {
		bytes += VLAN_TAG_BYTES;
		tag = key_tci(skb->vlan_tci);
	}
	if (in && in->flags & PORT_RECEIVE) {
		if (express(hook, (void *)(long)skb->data, (void *)(long)skb->data_end, in, cpu, bytes, tag, &way, &v))
			return v.code;
	} else {
		way = EXPRESS_NO;
	}
	struct packet *p = new_packet(cpu, in, skb->len, tag ? 1 : 0);
	if (!p)
		return TC_ACT_SHOT;
	if (way == EXPRESS_EDIT) {
		tc_programs.call(skb, PROGRAM_EDIT);
		call_apart(PROGRAM_EDIT);
	}
	if (way != EXPRESS_NO)
		tc_programs.call(skb, PROGRAM_HANDLE);
	int whole = parse_at_tc(p, skb, tag);
	p->found = 0;
	verdict(&v, FATE_DROPPED, DROP_RUNT, TC_ACT_SHOT);
	if (p->port_flags & PORT_TUNNEL) {
		if (whole)
			tc_programs.call(skb, PROGRAM_TUNNEL);
		p->number = 0; /* no port's, as yet */
	} else if (whole) {
		tc_programs.call(skb, PROGRAM_HANDLE);
	}
	return finish(p, hook, &v);
}

/* After parsing, on a tunnel device. */
int ofswitch_tunnel(struct __sk_buff *skb)
{
	struct packet *p = scratch_packet();

	if (!p)
		return TC_ACT_SHOT;
	leave_tunnel(p, skb, p->number);
	tc_programs.call(skb, PROGRAM_HANDLE);
	return TC_ACT_SHOT;
}

/* The end of a common packet that struct edit rewrites. The kernel makes sure, before a program that writes to packets begins, that this
 * one is nobody else's; layer 4's checksum is its business, because only it knows whether there is one yet. */
int ofswitch_edit(struct __sk_buff *skb)
{
	struct hook hook = {.tc = 1, .skb = skb};
	struct packet *p = scratch_packet();
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	void *l4 = data + sizeof(struct eth_header) + sizeof(struct ipv4_header);
	struct verdict v;

	if (!p)
		return TC_ACT_SHOT;
	p->slot = p->found - 1;
	struct megaflow *megaflow = megaflows_at(p->slot);
	struct megaflow_body *body = megaflow_bodies_at(p->slot);
	if (!megaflow || !body || l4 + 8 > end) /* cannot be */
		return TC_ACT_SHOT;
	const struct edit *edit = edit_of(body);
	struct common old, new;
	take_words(&old, p);
	new = old;
	edit_words(&new, edit, megaflow->ttl_needed);
	struct differences d = differences(&old, &new, edit, megaflow->ttl_needed);
	write_common(data, &new);
	if (d.ipv4) {
		u16 *sum = l4 - 10;
		*sum = replaced_sum(*sum, d.ipv4);
	}
	u32 tcp = LAYER_IS(p, LAYER_TCP), sum_at = sizeof(struct eth_header) + sizeof(struct ipv4_header) + (tcp ? 16 : 6);
	u64 flags = tcp ? 0 : BPF_F_MARK_MANGLED_0;
	int failed = (d.l4 && bpf_l4_csum_replace(skb, sum_at, 0, folded(d.l4), flags) < 0) ||
		     (d.pseudo && bpf_l4_csum_replace(skb, sum_at, 0, folded(d.pseudo), flags | BPF_F_PSEUDO_HDR) < 0);
#ifdef TEST_RUN
	put_words(p, &new);
#endif
	if (megaflow->flags & MEGAFLOW_RETAGS)
		failed |= retag(p, hook, edit) < 0;
	count_megaflow(p, p->slot);
	if (failed)
		verdict(&v, FATE_DROPPED, DROP_REWRITE_FAILED, TC_ACT_SHOT);
	else
		send_last(p, hook, megaflow->xdp_port, p->cpu, p->length + p->metadata_tag * VLAN_TAG_BYTES, &v);
	return finish(p, hook, &v);
}

/* What comes after parsing. Programs follow each other by tail call, so that the verifier goes through each once, from one state. */
static __always_inline int handle_parsed(struct hook hook, int drop)
{
	struct packet *p = scratch_packet();
	struct verdict v;

	if (!p)
		return drop;
	handle(p, hook, &v);
	return finish(p, hook, &v);
}

int ofswitch_tc_on(struct __sk_buff *skb)
{
	return handle_parsed((struct hook){.tc = 1, .skb = skb}, TC_ACT_SHOT);
}

int ofswitch_xdp_on(struct xdp_md *xdp)
{
	return handle_parsed((struct hook){.tc = 0, .xdp = xdp}, XDP_DROP);
}

/* The rest of a megaflow with more ops than one program executes. */
static __always_inline int go_on(struct hook hook, int drop)
{
	struct packet *p = scratch_packet();
	struct verdict v;

	if (!p)
		return drop;
	u32 slot = p->slot;
	struct megaflow_body *body = megaflow_bodies_at(slot);
	if (!body)
		return drop;
	opaque(body); /* or each op would be found by the slot's number again, whose bounds kernel 6.1 does not see there */
	execute(p, hook, body, p->first, &v);
	return finish(p, hook, &v);
}

int ofswitch_tc_go(struct __sk_buff *skb)
{
	return go_on((struct hook){.tc = 1, .skb = skb}, TC_ACT_SHOT);
}

int ofswitch_xdp_go(struct xdp_md *xdp)
{
	return go_on((struct hook){.tc = 0, .xdp = xdp}, XDP_DROP);
}

/* The meters of a megaflow, which stand before everything else: also of one that the slow path executes, so that a meter has one
 * count for all tiers. */
static __always_inline void run_meters(struct packet *p, struct hook hook, const struct megaflow_body *body, struct verdict *v)
{
	u32 ops = 0;

	no_unroll for (u32 i = 0; i < MAX_METER_OPS; i++) {
		opaque(i);
		const struct op *op = &body->ops[i];
		if (op->code != OP_METER)
			break;
		if (run_meter(p, hook, op->arg16) == METER_DROPS) {
			if (p->punted)
				count_megaflow(p, p->slot); /* the slow path does not see it */
			count_megaflow(p, op->arg32);
			verdict(v, FATE_DROPPED, DROP_METER, TC_ACT_SHOT);
			return;
		}
		ops = i + 1;
	}
	if (!p->punted) {
		p->first = ops;
		tc_programs.call(hook.skb, PROGRAM_EXECUTE);
		verdict(v, FATE_DROPPED, DROP_REDIRECT_FAILED, TC_ACT_SHOT); /* the call does not return */
		return;
	}
	if (fix_checksums(p, hook) < 0)
		verdict(v, FATE_DROPPED, DROP_REWRITE_FAILED, TC_ACT_SHOT);
	else
		send_up(p, hook, UPCALL_ACTION, body->id, v);
}

int ofswitch_meter(struct __sk_buff *skb)
{
	struct hook hook = {.tc = 1, .skb = skb};
	struct packet *p = scratch_packet();
	struct verdict v;

	if (!p)
		return TC_ACT_SHOT;
	u32 slot = p->slot;
	struct megaflow_body *body = megaflow_bodies_at(slot);
	if (!body)
		return TC_ACT_SHOT;
	if (!p->punted)
		count_megaflow(p, slot);
	begin(p, slot);
	run_meters(p, hook, body, &v);
	return finish(p, hook, &v);
}

/* Packets that the slow path executes are metered like all others: it calls this by BPF_PROG_TEST_RUN. Returns what meter_packets does. */
int ofswitch_take(struct __sk_buff *skb)
{
	struct metered taken;

	if (bpf_skb_load_bytes(skb, ETH_HEADER_BYTES, &taken, sizeof(taken)) < 0)
		return METER_PASSES;
	struct meter *meter = meters.lookup(&taken.meter);
	return meter ? meter_packets(meter, taken.packets, taken.bytes) : METER_PASSES;
}

/* The end of a packet that a plug-in drops. */
int ofswitch_drop(struct __sk_buff *skb)
{
	struct hook hook = {.tc = 1, .skb = skb};
	struct packet *p = scratch_packet();
	struct verdict v;

	if (!p)
		return TC_ACT_SHOT;
	if (p->drop_slot != NO_SLOT)
		count_megaflow(p, p->drop_slot);
	verdict(&v, p->sent ? FATE_FORWARDED : FATE_DROPPED, DROP_PLUGIN, TC_ACT_SHOT);
	return finish(p, hook, &v);
}

/* Runs a plug-in on a frame of the slow path, by BPF_PROG_TEST_RUN: `cb` is the program's index, the arguments, and the port's number. */
int ofswitch_apart(struct __sk_buff *skb)
{
	u32 place = CPUS;
	struct packet *p = scratch.lookup(&place);

	if (!p)
		return PLUGIN_DROPS;
	p->cpu = bpf_get_smp_processor_id();
	p->length = p->bytes = skb->len;
	p->metadata_tag = 0;
	if (!parse(p, (void *)(long)skb->data, (void *)(long)skb->data_end, 0))
		return PLUGIN_DROPS;
	p->number = skb->cb[4];
	p->key.f.in_port = bpf_htonl(number_at(p->number));
	p->operand[0] = (u64)skb->cb[2] << 32 | skb->cb[1];
	p->operand[1] = skb->cb[3];
	tc_programs.call(skb, skb->cb[0]);
	return PLUGIN_DROPS; /* there is no such program: the call has returned */
}

/* What time it is, for last_used: Python calls this by BPF_PROG_TEST_RUN. */
int ofswitch_clock(struct __sk_buff *skb)
{
	u32 zero = 0;
	u64 *now = ticks.lookup(&zero);

	if (now)
		*now = bpf_jiffies64();
	return 0;
}

int ofswitch_flood(struct __sk_buff *skb)
{
	struct hook hook = {.tc = 1, .skb = skb};
	struct packet *p = scratch_packet();

	if (!p)
		return TC_ACT_SHOT;
	flood(p, hook);
	tc_programs.call(skb, PROGRAM_EXECUTE);
	return TC_ACT_SHOT;
}

/* The packet as it is now goes on as a new one; what is beside the frame it keeps. */
int ofswitch_again(struct __sk_buff *skb)
{
	struct hook hook = {.tc = 1, .skb = skb};
	struct packet *p = scratch_packet();
	struct verdict v;

	if (!p)
		return TC_ACT_SHOT;
	u64 tunnel_id = p->key.f.tunnel_id;
	u32 tun_src = p->key.f.tun_src, tun_dst = p->key.f.tun_dst, plugin_bits = p->key.f.plugin_bits;
	u32 tag = skb->vlan_present ? key_tci(skb->vlan_tci) : 0;
	p->metadata_tag = tag ? 1 : 0;
	p->length = skb->len;
	int whole = parse_at_tc(p, skb, tag);
	p->key.f.tunnel_id = tunnel_id;
	p->key.f.tun_src = tun_src;
	p->key.f.tun_dst = tun_dst;
	p->key.f.plugin_bits = plugin_bits;
	p->found = 0;
	if (whole)
		tc_programs.call(skb, PROGRAM_LOOK_UP);
	verdict(&v, p->sent ? FATE_FORWARDED : FATE_DROPPED, DROP_RUNT, TC_ACT_SHOT);
	return finish(p, hook, &v);
}

/* A copy for the controllers. */
int ofswitch_copy(struct __sk_buff *skb)
{
	struct hook hook = {.tc = 1, .skb = skb};
	struct packet *p = scratch_packet();

	if (!p)
		return TC_ACT_SHOT;
	u32 slot = p->slot;
	struct megaflow_body *body = megaflow_bodies_at(slot);
	u64 at = p->first - 1;
	opaque(at);
	/* In a way of a choice the slot is not the megaflow's. */
	struct megaflow_body *megaflow = megaflow_bodies_at(p->found - 1);
	if (!body || !megaflow || at >= MAX_OPS)
		return TC_ACT_SHOT;
	if (punt(p, hook, UPCALL_COPY, megaflow->id, &body->ops[at]) != PUNTED) {
		struct port_counters *counters = port_counters_at(p->number + (u64)p->cpu * PORT_PLACES);
		if (counters)
			counters->lost++;
	}
	p->sent = 1;
	tc_programs.call(skb, PROGRAM_EXECUTE);
	return TC_ACT_SHOT;
}

/* Whether there is more to the frame than XDP sees. */
static __always_inline int is_for_tc(struct xdp_md *xdp, u32 flags, u64 length)
{
	return flags & PORT_UNFINISHED || bpf_xdp_get_buff_len(xdp) != length;
}

/* At the egress of a tunnel device: a frame of the slow path is told where to go. Those of the fast path know. */
int ofswitch_inject(struct __sk_buff *skb)
{
	u32 zero = 0;
	struct injection *i = injection.lookup(&zero);

	if (!i || !i->mark || skb->mark != i->mark)
		return TC_ACT_OK;
	struct tunnel_key key = {.id = i->tunnel_id, .remote = {i->tun_dst}, .local = {i->tun_src}, .tos = i->tos, .ttl = i->ttl};
	skb->mark = 0;
	return enter_tunnel(skb, i->number, &key) ? TC_ACT_OK : TC_ACT_SHOT;
}

int ofswitch_xdp(struct xdp_md *xdp)
{
	struct hook hook = {.tc = 0, .xdp = xdp};
	void *data = (void *)(long)xdp->data, *end = (void *)(long)xdp->data_end;
	u32 cpu = bpf_get_smp_processor_id();
	u64 length = end - data;
	const struct ingress *in = ingress_of(xdp->ingress_ifindex);
	volatile u32 way; /* in memory, and written where the express way ends early: most packets are to pay nothing for it */
	struct verdict v;

	if (in && in->flags & (PORT_UNFINISHED | PORT_IN_PIECES) && is_for_tc(xdp, in->flags, length))
		return XDP_PASS;
	if (in && in->flags & PORT_RECEIVE) {
		if (express(hook, data, end, in, cpu, length, 0, &way, &v))
			return v.code;
	} else {
		way = EXPRESS_NO;
	}
	struct packet *p = new_packet(cpu, in, length, 0);
	if (!p)
		return XDP_DROP;
	if (way != EXPRESS_NO)
		xdp_programs.call(xdp, PROGRAM_HANDLE);
	p->found = 0;
	verdict(&v, FATE_DROPPED, DROP_RUNT, XDP_DROP);
	if (parse(p, data, end, 0))
		xdp_programs.call(xdp, PROGRAM_HANDLE);
	return finish(p, hook, &v);
}
