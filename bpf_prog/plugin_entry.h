/* SPDX-License-Identifier: GPL-2.0 */
/* The programs that lead in and out of a plug-in: the loader puts this behind its source. NEXT_MATCH is the program to go on with. */
#pragma once

#ifdef HAS_ACTION
int ofswitch_action(struct __sk_buff *skb)
{
	u32 place = bpf_get_smp_processor_id();
	struct packet *p = scratch.lookup(&place);

	if (!p)
		return TC_ACT_SHOT;
	if (plugin_action(p, skb, p->operand) == PLUGIN_PASSES)
		tc_programs.call(skb, PROGRAM_EXECUTE);
	tc_programs.call(skb, PROGRAM_DROP);
	return TC_ACT_SHOT;
}

int ofswitch_action_apart(struct __sk_buff *skb)
{
	u32 place = CPUS;
	struct packet *p = scratch.lookup(&place);

	return p ? plugin_action(p, skb, p->operand) : PLUGIN_DROPS;
}
#endif

#ifdef HAS_MATCH
#define MATCH_MASK (~0u >> (32 - MATCH_BITS))

int ofswitch_match(struct __sk_buff *skb)
{
	u32 place = bpf_get_smp_processor_id();
	struct packet *p = scratch.lookup(&place);

	if (!p)
		return TC_ACT_SHOT;
	p->found = 0; /* without these bits */
	p->key.f.plugin_bits |= bpf_htonl((plugin_match(p, skb) & MATCH_MASK) << MATCH_AT);
	tc_programs.call(skb, NEXT_MATCH);
	return TC_ACT_SHOT;
}

int ofswitch_match_apart(struct __sk_buff *skb)
{
	u32 place = CPUS;
	struct packet *p = scratch.lookup(&place);

	return p ? (plugin_match(p, skb) & MATCH_MASK) << MATCH_AT : 0;
}
#endif
