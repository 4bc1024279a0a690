/* SPDX-License-Identifier: GPL-2.0 */
/* Execution of a megaflow's ops. */
#pragma once

#define TC_ACT_OK 0
#define TC_ACT_SHOT 2
#define TC_ACT_STOLEN 4
#define TC_ACT_REDIRECT 7

/* What became of a packet: one exit of each program counts it. */
enum fate {
	FATE_FORWARDED,
	FATE_DROPPED,
	FATE_PUNTED,
	FATE_PASSED, /* from XDP to TC */
};

struct verdict {
	u32 fate;
	u32 reason; /* enum drop_reason, for FATE_DROPPED */
	int code;   /* what the hook returns */
};

#ifdef TEST_RUN
#define TEST_STOPPED 77

static __always_inline int test_output(u32 op, u32 port)
{
	u32 zero = 0;
	struct test_run *run = test_run.lookup(&zero);
	if (!run)
		return 0;
	run->outputs++;
	if (run->outputs != run->stop)
		return 0;
	run->op = op;
	run->port = port;
	return 1;
}

/* By which tunnel it would leave, as the kernel has it then: source and destination are the other way round as for a packet that came. */
static __always_inline void test_tunnel(struct packet *p, struct __sk_buff *skb, u32 number)
{
	u32 zero = 0;
	struct test_run *run = test_run.lookup(&zero);
	struct port *port = ports_at(number);
	struct tunnel_key key = {};

	if (!run || !port || !(port->flags & PORT_TUNNEL))
		return;
	run->nowhere = !enter_tunnel_as(p, skb, number);
	if (run->nowhere || bpf_skb_get_tunnel_key(skb, (void *)&key, sizeof(key), 0) < 0)
		return;
	run->left[0] = key.id;
	run->left[1] = key.remote[0];
	run->left[2] = key.local[0];
	run->tos = key.tos;
	run->ttl = key.ttl;
}
#endif

/* Statistics of a slot. `flags` is word 11 of the key, which has TCP's. */
static __always_inline void count_slot(u32 slot, u32 cpu, u64 bytes, u64 flags)
{
	struct megaflow_stats *stats = megaflow_stats_at(slot + (u64)cpu * MAX_MEGAFLOWS);

	if (!stats)
		return;
	stats->packets++;
	stats->bytes += bytes;
	stats->last_used = bpf_jiffies64(); /* a load, where the clock would be a call */
	stats->tcp_flags |= flags;
}

static __always_inline void count_sent(u32 number, u32 cpu, u64 bytes)
{
	struct port_counters *counters = port_counters_at(number + (u64)cpu * PORT_PLACES);
	if (counters) {
		counters->tx_packets++;
		counters->tx_bytes += bytes;
	}
}

static __always_inline struct port *port_to_send(u32 number)
{
	struct port *port = ports_at(number);
	return port && port->ifindex && port->flags & PORT_FORWARD ? port : NULL;
}

#define PACKET_HOST 0

/* What begins with `first`, 8 bytes, leaves at TC. By the veth's queue, or straight to its other end: the kernel takes that for a frame to
 * the machine there, and looks at no MTU, so this is for frames of which both are right. */
static __always_inline int put_out(struct __sk_buff *skb, const struct port *port, u64 first)
{
	if ((first & ETH_DST_BITS) == port->other_end && (skb->len <= port->longest || skb->gso_size)) {
		if (skb->pkt_type != PACKET_HOST) /* before 6.16 the kernel leaves what it was on the way in */
			bpf_skb_change_type(skb, PACKET_HOST);
		int code = bpf_redirect_peer(port->ifindex, 0);
		call_apart(0);
		return code;
	}
	return bpf_redirect(port->ifindex, 0);
}

/* The frame's first 8 bytes; all 1 where they are not in the memory at hand. */
static __always_inline u64 first_bytes(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	return data + 8 > end ? ~0ull : *(u64 *)data;
}

/* Sends a copy; a port that is down, or a tunnel port without a destination, gets none. */
static __always_inline int send_copy(struct packet *p, struct hook hook, u32 number)
{
#ifdef TEST_RUN
	if (!test_output(OP_OUTPUT, number))
		return 0;
	test_tunnel(p, hook.skb, number);
	return TEST_STOPPED;
#endif
	struct port *port = port_to_send(number);
	if (!port || (port->flags & PORT_TUNNEL && !enter_tunnel_as(p, hook.skb, number)))
		return 0;
	if (bpf_clone_redirect(hook.skb, port->ifindex, 0) < 0)
		return -1;
	count_sent(number, p->cpu, p->length + p->metadata_tag * VLAN_TAG_BYTES);
	return 0;
}

static __always_inline void verdict(struct verdict *v, u32 fate, u32 reason, int code)
{
	v->fate = fate;
	v->reason = reason;
	v->code = code;
}

static __always_inline void send_last(struct packet *p, struct hook hook, u32 number, u32 cpu, u64 bytes, struct verdict *v)
{
	int drop = hook.tc ? TC_ACT_SHOT : XDP_DROP;
#ifdef TEST_RUN
	verdict(v, FATE_FORWARDED, 0, drop);
	if (test_output(OP_FORWARD, number)) {
		if (hook.tc)
			test_tunnel(p, hook.skb, number);
		v->code = TEST_STOPPED;
	}
	return;
#endif
	struct port *port = port_to_send(number);
	if (!port) {
		verdict(v, FATE_DROPPED, DROP_OUTPUT_DOWN, drop);
		return;
	}
	if (hook.tc && port->flags & PORT_TUNNEL && !enter_tunnel_as(p, hook.skb, number)) {
		verdict(v, FATE_DROPPED, DROP_NO_TUNNEL_DESTINATION, drop);
		return;
	}
	int code = hook.tc ? put_out(hook.skb, port, first_bytes(hook.skb)) : xdp_ports.redirect_map(number, 0);
	if (hook.tc ? code == TC_ACT_SHOT : code != XDP_REDIRECT) {
		verdict(v, FATE_DROPPED, DROP_REDIRECT_FAILED, drop);
		return;
	}
	count_sent(number, cpu, bytes);
	verdict(v, FATE_FORWARDED, 0, code);
}

/* Copies to every flood port but the packet's own. */
static __always_inline void flood(struct packet *p, struct hook hook)
{
	u32 zero = 0, in_port = p->number;
	struct settings *s = settings.lookup(&zero);
	u32 count = s ? s->flood_ports : 0;

	no_unroll for (u32 i = 0; i < MAX_FLOOD_PORTS; i++) {
		opaque(i);
		if (i >= count)
			break;
		u32 index = i;
		u32 *number = flood_list.lookup(&index);
		if (number && *number != in_port)
			send_copy(p, hook, *number);
	}
	p->sent = 1;
}

/* One op that changes the packet. */
static __always_inline int change(struct packet *p, struct hook hook, const struct op *op)
{
	const u16 *mac = &op->arg16;
	u32 l2 = p->network;

	switch (op->code) {
	case OP_OPERAND_0:
		__builtin_memcpy(p->operand, mac, 6);
		return 0;
	case OP_OPERAND_1:
		__builtin_memcpy((u8 *)p->operand + 6, mac, 6);
		((u8 *)p->operand)[12] = op->arg8;
		return 0;
	case OP_PUSH_TAG:
		return push_tag(p, hook, op->arg16, op->arg32);
	case OP_POP_TAG:
		return pop_tag(p, hook);
	case OP_SET_VLAN:
		return set_vlan(p, hook, op->arg16, op->arg32);
	case OP_SET_ETH_DST:
		return set_mac(p, hook, 0, p->key.f.eth_dst, mac, 0);
	case OP_SET_ETH_SRC:
		return set_mac(p, hook, 6, p->key.f.eth_src, mac, 0);
	case OP_SET_ETH_TYPE:
		p->key.f.eth_type = op->arg16;
		return store(p, hook, l2 - 2 - hidden_tags(p) * VLAN_TAG_BYTES, &op->arg16, 2, 0);
	case OP_SET_IPV4_SRC:
		return LAYER_IS(p, LAYER_IPV4) ? set_ipv4(p, hook, 12, p->key.f.ip_src + 12, op->arg32) : 0;
	case OP_SET_IPV4_DST:
		return LAYER_IS(p, LAYER_IPV4) ? set_ipv4(p, hook, 16, p->key.f.ip_dst, op->arg32) : 0;
	case OP_SET_IPV6_SRC:
		((u32 *)p->operand)[3] = op->arg32;
		return LAYER_IS(p, LAYER_IPV6) ? set_ipv6(p, hook, 8, p->key.f.ip_src, 1) : 0;
	case OP_SET_IPV6_DST:
		((u32 *)p->operand)[3] = op->arg32;
		/* Behind a routing header the checksum covers the last destination, which is not this one. */
		return LAYER_IS(p, LAYER_IPV6)
			       ? set_ipv6(p, hook, 24, p->key.f.ip_dst, !(p->key.f.ipv6_exthdr & bpf_htons(EXTHDR_ROUTER)))
			       : 0;
	case OP_SET_IPV6_FLABEL:
		if (!LAYER_IS(p, LAYER_IPV6))
			return 0;
		p->key.f.ipv6_flabel = op->arg32;
		return store_ipv6_first(p, hook);
	case OP_SET_IP_TOS:
		return set_tos(p, hook, op->arg8, op->arg16);
	case OP_SET_IP_TTL:
		return set_ttl(p, hook, op->arg8);
	case OP_DEC_TTL:
		return LAYER_IS(p, LAYER_IPV4 | LAYER_IPV6) ? set_ttl(p, hook, p->key.f.ip_ttl - 1) : 0;
	case OP_SET_IP_PROTO:
		return set_ip_proto(p, hook, op->arg8);
	case OP_SET_L4_SRC:
		return LAYER_IS(p, op->arg32) ? set_l4_port(p, hook, 0, op->arg16) : 0;
	case OP_SET_L4_DST:
		return LAYER_IS(p, op->arg32) ? set_l4_port(p, hook, 1, op->arg16) : 0;
	case OP_SET_ICMP_TYPE:
		return LAYER_IS(p, LAYER_ICMP) && LAYER_IS(p, op->arg32) ? set_icmp(p, hook, 0, op->arg8) : 0;
	case OP_SET_ICMP_CODE:
		return LAYER_IS(p, LAYER_ICMP) && LAYER_IS(p, op->arg32) ? set_icmp(p, hook, 1, op->arg8) : 0;
	case OP_SET_ARP_OP:
		if (!LAYER_IS(p, LAYER_ARP))
			return 0;
		p->key.f.l4_src = op->arg16;
		return store(p, hook, l2 + 6, &op->arg16, 2, 1);
	case OP_SET_ARP_SPA:
		if (!LAYER_IS(p, LAYER_ARP))
			return 0;
		*(u32 *)(p->key.f.ip_src + 12) = op->arg32;
		return store(p, hook, l2 + 14, &op->arg32, 4, 1);
	case OP_SET_ARP_TPA:
		if (!LAYER_IS(p, LAYER_ARP))
			return 0;
		*(u32 *)p->key.f.ip_dst = op->arg32;
		return store(p, hook, l2 + 24, &op->arg32, 4, 1);
	case OP_SET_ARP_SHA:
		return LAYER_IS(p, LAYER_ARP) ? set_mac(p, hook, l2 + 8, p->key.f.nd_sll, mac, 1) : 0;
	case OP_SET_ARP_THA:
		return LAYER_IS(p, LAYER_ARP) ? set_mac(p, hook, l2 + 18, p->key.f.nd_tll, mac, 1) : 0;
	case OP_SET_ND_TARGET:
		((u32 *)p->operand)[3] = op->arg32;
		return LAYER_IS(p, LAYER_ND) ? set_nd_target(p, hook) : 0;
	case OP_SET_ND_SLL:
		return LAYER_IS(p, LAYER_ND_SLL) ? set_nd_address(p, hook, p->nd_sll, p->key.f.nd_sll, mac) : 0;
	case OP_SET_ND_TLL:
		return LAYER_IS(p, LAYER_ND_TLL) ? set_nd_address(p, hook, p->nd_tll, p->key.f.nd_tll, mac) : 0;
	case OP_SET_TUNNEL_ID:
		p->key.f.tunnel_id = 0;
		__builtin_memcpy((u8 *)&p->key.f.tunnel_id + 2, mac, 6);
		return 0;
	case OP_SET_TUN_SRC:
		p->key.f.tun_src = op->arg32;
		return 0;
	case OP_SET_TUN_DST:
		p->key.f.tun_dst = op->arg32;
		return 0;
	case OP_CHECKSUMS:
		return fix_checksums(p, hook);
	}
	return 0;
}

/* The ops from OP_MORE on: their code is not in the program that most packets go through. */
static __always_inline int change_more(struct packet *p, struct hook hook, const struct op *op)
{
	switch (op->code) {
	case OP_PUSH_MPLS:
		return push_mpls(p, hook, op->arg16);
	case OP_POP_MPLS:
		return pop_mpls(p, hook, op->arg16);
	case OP_SET_MPLS:
		return set_mpls(p, hook, ((1u << (op->arg16 & 31)) - 1) << (op->arg8 & 31), op->arg32);
	case OP_DEC_MPLS_TTL:
		return set_mpls(p, hook, ENTRY_TTL, (bpf_ntohl(p->key.f.mpls) - 1) & ENTRY_TTL);
	case OP_COPY_TTL_OUT:
		return copy_ttl_out(p, hook);
	case OP_COPY_TTL_IN:
		return copy_ttl_in(p, hook);
	case OP_SAVE:
		return hook.tc ? save_packet(p, hook.skb, op->arg8) : -1;
	case OP_RESTORE:
		return hook.tc ? restore_packet(p, hook.skb, op->arg8) : -1;
	}
	return 0;
}

static __always_inline void count_megaflow(struct packet *p, u32 slot)
{
	count_slot(slot, p->cpu, p->bytes, p->key.w[11]);
}

/* Executes RUN_OPS ops from `first` on, and leaves the rest to the next program. The first program, which most packets do not leave,
 * starts at 0 and leaves the ops from OP_MORE on to the next, too. */
static __always_inline void execute(struct packet *p, struct hook hook, const struct megaflow_body *body, u32 first, struct verdict *v)
{
	int dropped = hook.tc ? TC_ACT_SHOT : XDP_DROP, is_first = __builtin_constant_p(first);

	p->first = first + RUN_OPS;
	no_unroll for (u32 i = 0; i < RUN_OPS; i++) {
		u64 at = first + i; /* 64 bits, compared and used in one register */
		if (!is_first)
			opaque(at);
		if (at >= MAX_OPS) {
			verdict(v, FATE_DROPPED, DROP_NO_ACTION, dropped);
			return;
		}
		const struct op *op = &body->ops[at];
		u32 code = op->code;

		if (code == OP_END) {
			verdict(v, p->sent ? FATE_FORWARDED : FATE_DROPPED, DROP_NO_ACTION, p->sent ? TC_ACT_STOLEN : dropped);
			return;
		}
		if (code == OP_FORWARD) {
			send_last(p, hook, op->arg32, p->cpu, p->length + p->metadata_tag * VLAN_TAG_BYTES, v);
			return;
		}
		if (hook.tc && code == OP_FLOOD) {
#ifdef TEST_RUN
			p->sent = 1;
			if (!test_output(OP_FLOOD, 0))
				continue;
			verdict(v, FATE_FORWARDED, 0, TEST_STOPPED);
			return;
#endif
			p->first = first + i + 1;
			tc_programs.call(hook.skb, PROGRAM_FLOOD);
			verdict(v, FATE_DROPPED, DROP_REDIRECT_FAILED, dropped); /* the call does not return */
			return;
		}
		if (hook.tc && code == OP_CHOOSE) {
			u32 slot = 0;
			if (!choose(p, op->arg32, &slot)) {
				verdict(v, p->sent ? FATE_FORWARDED : FATE_DROPPED, DROP_NO_LIVE_BUCKET, dropped);
				return;
			}
			count_megaflow(p, slot);
			p->slot = slot;
			p->first = 0;
			tc_programs.call(hook.skb, PROGRAM_EXECUTE);
			verdict(v, FATE_DROPPED, DROP_REDIRECT_FAILED, dropped); /* the call does not return */
			return;
		}
		if (hook.tc && code == OP_PLUGIN) {
			p->first = first + i + 1;
			p->drop_slot = op->arg32;
			tc_programs.call(hook.skb, PLUGIN_PROGRAM(PLUGIN_ACTION, op->arg8));
			verdict(v, FATE_DROPPED, DROP_PLUGIN, dropped); /* there is none of that number: the call has returned */
			return;
		}
		if (hook.tc && code == OP_CONTROLLER) {
			p->first = first + i + 1;
			tc_programs.call(hook.skb, PROGRAM_COPY);
			verdict(v, FATE_DROPPED, DROP_REDIRECT_FAILED, dropped); /* the call does not return */
			return;
		}
		if (hook.tc && code == OP_SET_QUEUE) {
			hook.skb->priority = op->arg32;
			continue;
		}
		if (hook.tc && code == OP_OUTPUT) {
			int result = send_copy(p, hook, op->arg32);
			if (result > 0) {
				verdict(v, FATE_FORWARDED, 0, result);
				return;
			}
			p->sent = 1;
			continue;
		}
		if (is_first && code >= OP_MORE) {
			p->first = i;
			break;
		}
		if (hook.tc && !is_first && code == OP_AGAIN) {
			p->again = op->arg32;
			if (op->arg8) {
				p->found = 0;
				tc_programs.call(hook.skb, PROGRAM_LOOK_UP);
				call_apart(PROGRAM_LOOK_UP);
			}
			tc_programs.call(hook.skb, PROGRAM_AGAIN);
			verdict(v, FATE_DROPPED, DROP_REDIRECT_FAILED, dropped); /* the call does not return */
			return;
		}
		if (!is_first && code == OP_NEXT) {
			p->slot = op->arg32;
			p->first = 0;
			break;
		}
		if ((code < OP_MORE ? change(p, hook, op) : change_more(p, hook, op)) < 0) {
			verdict(v, FATE_DROPPED, DROP_REWRITE_FAILED, dropped);
			return;
		}
	}
	if (hook.tc)
		tc_programs.call(hook.skb, PROGRAM_EXECUTE);
	else
		xdp_programs.call(hook.xdp, PROGRAM_EXECUTE);
	verdict(v, FATE_DROPPED, DROP_NO_ACTION, dropped);
}
