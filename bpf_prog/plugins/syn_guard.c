/* SPDX-License-Identifier: GPL-2.0 */
/* A guard against SYN floods: each source prefix may open so many TCP connections a second; SYNs beyond that are dropped. */
#include "plugin.h"

#define SYN 0x02
#define ACK 0x10
#define SECOND 1000000000ULL

struct arguments {
	__be32 rate; /* SYNs a second */
	__be16 burst;
	u8 prefix4;
	u8 prefix6;
};

/* Two actions with different limits count apart. */
struct source {
	u32 address[4];
	struct arguments limits;
};

/* When the token bucket of a source will be full: ns, CLOCK_MONOTONIC. The kernel forgets those not seen for longest. */
BPF_TABLE("lru_hash", struct source, u64, sources, 65536);

enum counter { PASSED, DROPPED };

static __always_inline void read_source(const struct packet *p, const struct arguments *a, struct source *source)
{
	/* An IPv4 address is in the last four bytes. */
	int bits = has_layer(p, LAYER_IPV6) ? a->prefix6 : 96 + a->prefix4;

	__builtin_memcpy(source->address, p->key.f.ip_src, sizeof(source->address));
	for (int n = 0; n < 4; n++, bits -= 32)
		if (bits < 32)
			source->address[n] &= bits > 0 ? bpf_htonl(~0U << (32 - bits)) : 0;
	source->limits = *a;
}

static __always_inline int plugin_action(struct packet *p, struct __sk_buff *skb, const void *arguments)
{
	const struct arguments *a = arguments;
	struct source source;

	if (!has_layer(p, LAYER_TCP) || (bpf_ntohs(p->key.f.tcp_flags) & (SYN | ACK)) != SYN || !a->rate)
		return PLUGIN_PASSES;
	read_source(p, a, &source);
	u64 now = bpf_ktime_get_ns(), cost = SECOND / bpf_ntohl(a->rate), full_at = now, *known = sources.lookup(&source);
	if (known && *known > now)
		full_at = *known;
	if (full_at - now > cost * (bpf_ntohs(a->burst) - 1)) {
		plugin_count(DROPPED);
		return PLUGIN_DROPS;
	}
	full_at += cost;
	sources.update(&source, &full_at); /* two CPUs at once may let one SYN too many through */
	plugin_count(PASSED);
	return PLUGIN_PASSES;
}
