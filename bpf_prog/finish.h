/* SPDX-License-Identifier: GPL-2.0 */
/* How the programs of a packet end: by the one exit, which counts. */
#pragma once

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
	if (hook.tc && v->code == TEST_STOPPED && hook.skb->vlan_present)
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
