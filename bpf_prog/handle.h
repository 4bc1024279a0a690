/* SPDX-License-Identifier: GPL-2.0 */
/* A parsed packet: its megaflow, and whether this hook does what that says, or the next tier. Whoever deals with it counts it. */
#pragma once

/* Whether a packet of this megaflow must wait in line behind those that are still in the slow path. */
static __always_inline int waits_in_line(const struct packet *p, struct megaflow *megaflow, struct megaflow_body *body)
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
	if (!is_in_line(p))
		return 0; /* those are of other flows */
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
	return waits_in_line(p, megaflow, body) ? UPCALL_CATCHING_UP : NOT_PUNTED;
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
