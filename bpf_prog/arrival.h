/* SPDX-License-Identifier: GPL-2.0 */
/* Taking up a packet: whose interface it came in on, the place in memory where this CPU works on it, and parsing at TC. */
#pragma once

/* NULL if the interface is no port's. */
static __always_inline const struct ingress *ingress_of(u32 ifindex)
{
	struct ingress *in = small_ifindex_at(ifindex);

	return in ? in : large_ifindex.lookup(&ifindex);
}

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
