/* SPDX-License-Identifier: GPL-2.0 */
/* What a plug-in is written with: it includes this, and defines `plugin_action` or `plugin_match`, or both. See plugins/README.md.
 *
 *	static __always_inline int plugin_action(struct packet *p, struct __sk_buff *skb, const void *arguments)
 *		PLUGIN_PASSES or PLUGIN_DROPS; `arguments` are the PLUGIN_ARGUMENT_BYTES of the action, in network order
 *	static __always_inline u32 plugin_match(struct packet *p, struct __sk_buff *skb)
 *		the value of the bits that the declaration gives it
 *
 * `p` says what is where in the packet and what it came with; its checksums are right. A plug-in that changes a field of `p->key` in
 * the packet changes it there too, names it in its declaration (`writes`), and moves no header.
 */
#pragma once

#include "abi.h"
#include "common.h"

#define TC_ACT_SHOT 2

/* These two are the switch's own: the loader puts them in the place of what is declared here. */
BPF_TABLE("array", u32, struct packet, scratch, CPUS + 1);
BPF_PROG_ARRAY(tc_programs, 1);
/* What the plug-in counts, by place of the name in its declaration. `plugin_count` adds, Python reads */
BPF_TABLE("percpu_array", u32, u64, counters, MAX_PLUGIN_COUNTERS);

static __always_inline void plugin_count(u32 counter)
{
	u64 *count = counters.lookup(&counter);
	if (count)
		(*count)++;
}

/* Whether the packet has this header (enum layer), whole. */
static __always_inline int has_layer(const struct packet *p, u32 layer)
{
	return (p->key.f.layers & bpf_htons(layer)) != 0;
}

/* Where layer 4 begins: the header of TCP, UDP, SCTP or ICMP, if the packet has one. */
static __always_inline u32 l4_start(const struct packet *p)
{
	return p->network + p->l4;
}

/* `size` bytes from `offset` behind the start of layer 4; less than 0 if the packet has not so many. */
static __always_inline int l4_load(struct packet *p, struct __sk_buff *skb, u32 offset, void *to, u32 size)
{
	return bpf_skb_load_bytes(skb, l4_start(p) + offset, to, size);
}

#define L4_STORE_MAX 32

/* Where IP says that the packet ends: what is behind it is padding, which no checksum covers. */
static __always_inline u32 ip_end(const struct packet *p, struct __sk_buff *skb)
{
	u32 ipv6 = has_layer(p, LAYER_IPV6);
	__be16 length = 0;

	if (bpf_skb_load_bytes(skb, p->network + (ipv6 ? 4 : 2), &length, sizeof(length)) < 0)
		return 0;
	return p->network + (ipv6 ? 40 : 0) + bpf_ntohs(length);
}

/* Writes there, and the checksum of TCP or UDP follows. `size` is a constant multiple of 4 up to L4_STORE_MAX, `offset` even. Less than
 * 0 if the packet has not so many bytes, or neither TCP nor UDP. */
static __always_inline int l4_store(struct packet *p, struct __sk_buff *skb, u32 offset, void *from, u32 size)
{
	u32 before[L4_STORE_MAX / 4] = {}, at = l4_start(p), sum = at;
	u64 flags = 0;
	u16 checksum = 0;

	if (has_layer(p, LAYER_UDP)) {
		sum += 6;
		flags = BPF_F_MARK_MANGLED_0;
	} else if (has_layer(p, LAYER_TCP)) {
		sum += 16;
	} else {
		return -1;
	}
	if (at + offset + size > ip_end(p, skb))
		return -1;
	if (bpf_skb_load_bytes(skb, at + offset, before, size) < 0 || bpf_skb_load_bytes(skb, sum, &checksum, sizeof(checksum)) < 0)
		return -1;
	if (flags && !checksum) /* UDP without a checksum: nothing makes up for the change in the sum that a device may have given */
		return bpf_skb_store_bytes(skb, at + offset, from, size, BPF_F_RECOMPUTE_CSUM);
	s64 difference = bpf_csum_diff((__be32 *)before, size, from, size, 0);
	if (bpf_skb_store_bytes(skb, at + offset, from, size, 0) < 0)
		return -1;
	return bpf_l4_csum_replace(skb, sum, 0, difference, flags);
}
