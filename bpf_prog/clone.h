/* SPDX-License-Identifier: GPL-2.0 */
/* Copies with changes of their own: OP_SAVE keeps the packet as it is, its ops change the packet itself, and OP_RESTORE makes it what it
 * was. So nothing is copied but headers, unless a copy is put out. TC only.
 *
 * What ops may change is saved: the headers, tags in metadata, and all that is known of the packet. In between no op but those of tags
 * moves a header.
 */
#pragma once

#define SAVED_BYTES (ETH_HEADER_BYTES + MAX_VLAN_TAGS * VLAN_TAG_BYTES + NETWORK_MAX)

/* How the packet was. */
struct saved {
	struct packet packet;
	u32 priority;
	u16 tpid; /* of the tag in metadata, network order */
	u16 tci;  /* likewise, host order */
	u64 length;
	u8 bytes[(SAVED_BYTES + 7) / 8 * 8];
};

/* eBPF's own: of the packet that this CPU handles */
BPF_TABLE("array", u32, struct saved, saved, CPUS);

/* With a tag, one is in metadata then, where the outermost comes to lie when they are pushed again. */
static __always_inline int tag_to_metadata(struct packet *p, struct __sk_buff *skb)
{
	u16 tag[2]; /* type and TCI */

	if (p->metadata_tag || !p->frame_tags)
		return 0;
	if (bpf_skb_load_bytes(skb, ETH_HEADER_BYTES - 2, tag, sizeof(tag)) < 0 || bpf_skb_vlan_pop(skb) < 0 ||
	    bpf_skb_vlan_push(skb, tag[0], bpf_ntohs(tag[1])) < 0)
		return -1;
	p->metadata_tag = 1;
	p->frame_tags--;
	p->network -= VLAN_TAG_BYTES;
	p->length -= VLAN_TAG_BYTES;
	return 0;
}

/* For the verifier, in two comparisons: kernel 6.1 does not see both bounds in one. */
static __always_inline int is_savable(u64 *length)
{
	opaque(*length);
	if (*length > SAVED_BYTES)
		return 0;
	opaque(*length);
	return *length >= ETH_HEADER_BYTES;
}

/* `tags`: they will change. */
static __always_inline int save_packet(struct packet *p, struct __sk_buff *skb, u32 tags)
{
	u32 cpu = p->cpu;
	struct saved *s = saved.lookup(&cpu);

	if (!s || (tags && tag_to_metadata(p, skb) < 0))
		return -1;
	s->packet = *p;
	s->priority = skb->priority;
	s->tpid = skb->vlan_proto;
	s->tci = skb->vlan_tci;
	u64 length = skb->len;
	opaque(length);
	if (length > SAVED_BYTES)
		length = SAVED_BYTES;
	s->length = length;
	return is_savable(&length) ? bpf_skb_load_bytes(skb, 0, s->bytes, length) : -1;
}

/* As many tags as there were, where they were. Those in the frame are written with the other bytes; but the kernel keeps in mind what
 * type the outermost of them has. */
static __always_inline int restore_tags(struct packet *p, struct __sk_buff *skb, const struct saved *s)
{
	u32 now = p->frame_tags + p->metadata_tag, before = s->packet.frame_tags + s->packet.metadata_tag;

	no_unroll for (u32 i = 0; i < MAX_TAGS_OF_COPY; i++) {
		opaque(i);
		if (i >= now)
			break;
		if (bpf_skb_vlan_pop(skb) < 0)
			return -1;
	}
	no_unroll for (u32 i = 0; i < MAX_TAGS_OF_COPY; i++) {
		opaque(i);
		if (i >= before)
			break;
		if (bpf_skb_vlan_push(skb, i == before - 1 ? s->tpid : *(const u16 *)(s->bytes + ETH_HEADER_BYTES - 2), s->tci) < 0)
			return -1;
	}
	return 0;
}

static __always_inline int restore_packet(struct packet *p, struct __sk_buff *skb, u32 tags)
{
	u32 cpu = p->cpu, sent = p->sent, slot = p->slot, first = p->first;
	struct saved *s = saved.lookup(&cpu);

	if (!s || (tags && restore_tags(p, skb, s) < 0))
		return -1;
	u64 length = s->length;
	if (!is_savable(&length) || bpf_skb_store_bytes(skb, 0, s->bytes, length, BPF_F_RECOMPUTE_CSUM) < 0)
		return -1;
	skb->priority = s->priority;
	*p = s->packet;
	p->sent = sent;
	p->slot = slot; /* another than before, where the copy's ops go on in a further one */
	p->first = first;
	return 0;
}
