/* SPDX-License-Identifier: GPL-2.0 */
/* In-band timestamps: writes when, by which switch and from which port a UDP packet came, into room that its sender has left. */
#include "plugin.h"

#define UDP_HEADER_BYTES 8

struct arguments {
	__be32 hop;
	__be16 offset; /* in the payload */
};

struct record {
	__be64 time; /* ns, CLOCK_TAI: comparable between hosts that PTP keeps in step */
	__be32 hop;
	__be32 port;
};

enum counter { STAMPED, NO_ROOM };

static u64 (*ktime_get_tai_ns)(void) = (void *)208; /* newer than BCC's list of helpers */

static __always_inline int plugin_action(struct packet *p, struct __sk_buff *skb, const void *arguments)
{
	const struct arguments *a = arguments;
	struct record record = {bpf_htonll(ktime_get_tai_ns()), a->hop, bpf_htonl(p->number)};

	if (has_layer(p, LAYER_UDP) && !l4_store(p, skb, UDP_HEADER_BYTES + bpf_ntohs(a->offset), &record, sizeof(record)))
		plugin_count(STAMPED);
	else
		plugin_count(NO_ROOM);
	return PLUGIN_PASSES;
}
