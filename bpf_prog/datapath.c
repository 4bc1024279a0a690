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
#include "finish.h"
#include "handle.h"
#include "express.h"
#include "arrival.h"

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
		/* No port's, or no more: an interface that goes to another namespace takes this program along. */
		if (!in || !in->place)
			return XDP_PASS;
		way = EXPRESS_NO;
	}
	struct packet *p = new_packet(cpu, in, length, 0);
	if (!p)
		return XDP_DROP;
	if (way != EXPRESS_NO)
		xdp_programs.call(xdp, PROGRAM_HANDLE);
	p->found = 0;
	verdict(&v, FATE_DROPPED, DROP_RUNT, XDP_DROP);
	/* Loaded again: behind a tail call, kernels from 6.13 to 6.18, and older ones with their mends, know packet pointers no more. */
	if (parse(p, (void *)(long)xdp->data, (void *)(long)xdp->data_end, 0))
		xdp_programs.call(xdp, PROGRAM_HANDLE);
	return finish(p, hook, &v);
}
