/* SPDX-License-Identifier: GPL-2.0 */
/* MPLS label stack entries, and TTLs that are copied. appliance/packet/rewrite.py and ttl.py are the reference.
 *
 * At TC no helper inserts or removes MPLS. An entry is put in by room at the head, to which the MAC addresses move: to the kernel it
 * becomes a part of the link-layer header, so that a segmentation-offload frame is still cut where its IP header is. An entry is taken
 * out as VLAN tags are: its bytes are made to look like one. What is behind it would have to be parsed, so until then `layers` is 0.
 */
#pragma once

#define ENTRY_BYTES 4
#define ENTRY_BOS 0x100
#define ENTRY_TTL 0xff

static __always_inline int load(struct hook hook, u32 offset, void *to, u32 size)
{
	if (hook.tc)
		return bpf_skb_load_bytes(hook.skb, offset, to, size);
	void *from = frame_at(hook, offset, size);
	if (!from)
		return -1;
	__builtin_memcpy(to, from, size);
	return 0;
}

static __always_inline u32 frame_length(struct hook hook)
{
	if (hook.tc)
		return hook.skb->len;
	void *data = (void *)(long)hook.xdp->data, *end = (void *)(long)hook.xdp->data_end;
	return end - data;
}

/* As the kernel has it: BCC takes its result for an int. */
static s64 (*csum_update)(void *skb, u32 csum) = (void *)BPF_FUNC_csum_update;

/* A checksum over the whole packet, as some drivers give it, does not survive what follows. The kernel forgets it when a packet gets
 * longer. (A segmentation-offload frame has none.) */
static __always_inline void forget_whole_checksum(struct __sk_buff *skb)
{
	if (csum_update(skb, 0) < 0)
		return;
	u32 length = skb->len;
	bpf_skb_change_tail(skb, length + 1, 0);
	bpf_skb_change_tail(skb, length, 0);
}

/* ── push ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────── */
/* What a new entry copies (OpenFlow 1.3.5, table 7). */
static __always_inline u32 new_entry(const struct packet *p)
{
	u32 outermost = bpf_ntohl(p->key.f.mpls);

	if (LAYER_IS(p, LAYER_MPLS))
		return p->frame_tags + p->metadata_tag ? outermost | ENTRY_BOS : outermost & ~ENTRY_BOS;
	return ENTRY_BOS | (LAYER_IS(p, LAYER_IPV4 | LAYER_IPV6) ? p->key.f.ip_ttl : 0);
}

static __always_inline int insert_at_xdp(struct hook hook, u16 type, u32 entry)
{
	if (bpf_xdp_adjust_head(hook.xdp, -ENTRY_BYTES) < 0)
		return -1;
	u32 *to = frame_at(hook, 0, ETH_HEADER_BYTES + ENTRY_BYTES);
	if (!to)
		return -1;
	to[0] = to[1];
	to[1] = to[2];
	to[2] = to[3];
	*(u16 *)(to + 3) = type;
	__builtin_memcpy((u16 *)(to + 3) + 1, &entry, ENTRY_BYTES);
	return 0;
}

/* A tag in metadata goes into the frame, without its type. */
static __always_inline int insert_at_tc(struct packet *p, struct __sk_buff *skb, u16 type, u32 entry)
{
	struct {
		u8 macs[12];
		u8 hole[VLAN_TAG_BYTES];
		u16 type;
		u8 entry[ENTRY_BYTES];
		u16 tci;
	} head = {.type = type, .tci = bpf_htons((u16)skb->vlan_tci)};
	/* Where the kernel takes a tag for the first header in the frame, it would look for one there from now on: as it takes the one out
	 * of metadata, or one that is pushed later. It gets the hole, and sees what is behind that. */
	u32 hole = is_vlan(skb->protocol) ? VLAN_TAG_BYTES : 0;

	forget_whole_checksum(skb);
	if (p->metadata_tag && !hole && bpf_skb_vlan_pop(skb) < 0)
		return -1;
	__builtin_memcpy(head.entry, &entry, ENTRY_BYTES);
	if (bpf_skb_load_bytes(skb, 0, head.macs, sizeof(head.macs)) < 0)
		return -1;
	if (!p->metadata_tag) {
		if (bpf_skb_change_head(skb, ENTRY_BYTES + hole, 0) < 0 || bpf_skb_store_bytes(skb, 12 + hole, &head.type, 6, 0) < 0)
			return -1;
	} else {
		if (bpf_skb_change_head(skb, ENTRY_BYTES + VLAN_TAG_BYTES + hole, 0) < 0 ||
		    bpf_skb_store_bytes(skb, 12 + hole, &head.type, 8, 0) < 0)
			return -1;
	}
	if (bpf_skb_store_bytes(skb, 0, head.macs, sizeof(head.macs), 0) < 0)
		return -1;
	return hole && (bpf_skb_vlan_pop(skb) < 0 || (p->metadata_tag && bpf_skb_vlan_pop(skb) < 0)) ? -1 : 0;
}

static __always_inline int push_mpls(struct packet *p, struct hook hook, u16 type)
{
	u32 entry = bpf_htonl(new_entry(p));

	if ((hook.tc ? insert_at_tc(p, hook.skb, type, entry) : insert_at_xdp(hook, type, entry)) < 0)
		return -1;
	p->length += ENTRY_BYTES + (hook.tc ? p->metadata_tag * VLAN_TAG_BYTES : 0);
	p->frame_tags = p->metadata_tag = 0;
	p->network = ETH_HEADER_BYTES;
	p->key.f.eth_type = type;
	p->key.f.vlan_tci = p->key.f.inner_vlan_tci = 0;
	p->key.f.mpls = entry;
	p->key.f.layers = p->layers = bpf_htons(LAYER_MPLS);
	return 0;
}

/* ── pop ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────── */
static __always_inline int remove_at_xdp(struct packet *p, struct hook hook, u16 type)
{
	/* What is before the entry moves over it, the last first. */
	if (store(p, hook, p->network + 2, &type, 2, 0) < 0)
		return -1;
	no_unroll for (u32 word = 5; word; word--) {
		if (word > p->frame_tags + 3)
			continue;
		u32 *at = frame_at(hook, word * 4 - 4, 8);
		if (!at)
			return -1;
		at[1] = at[0];
	}
	return bpf_xdp_adjust_head(hook.xdp, ENTRY_BYTES);
}

/* Tags go first and are put back in the end. What is at offset 12 then, the type and the first half of the entry, is made a tag by two
 * that are pushed: the kernel takes a tag out of the frame behind one that it took out of metadata. */
static __always_inline int remove_at_tc(struct packet *p, struct __sk_buff *skb, u16 type)
{
	u16 tag[MAX_VLAN_TAGS][2] = {}; /* type and TCI in network order, the outermost first */
	u16 vlan = bpf_htons(ETHERTYPE_VLAN);
	u32 tags = p->frame_tags + p->metadata_tag, inner = p->metadata_tag;

	forget_whole_checksum(skb);
	if (p->metadata_tag) {
		tag[0][0] = skb->vlan_proto;
		tag[0][1] = bpf_htons((u16)skb->vlan_tci);
	}
	if (p->frame_tags > 1) {
		if (bpf_skb_load_bytes(skb, 12, tag, sizeof(tag)) < 0)
			return -1;
	} else if (p->frame_tags) {
		if (bpf_skb_load_bytes(skb, 12, inner ? tag[1] : tag[0], VLAN_TAG_BYTES) < 0)
			return -1;
	}
	if (tags && bpf_skb_vlan_pop(skb) < 0)
		return -1;
	if (tags > 1 && bpf_skb_vlan_pop(skb) < 0)
		return -1;
	if (bpf_skb_vlan_push(skb, vlan, 0) < 0 || bpf_skb_vlan_push(skb, vlan, 0) < 0 || bpf_skb_store_bytes(skb, 16, &vlan, 2, 0) < 0 ||
	    bpf_skb_vlan_pop(skb) < 0 || bpf_skb_store_bytes(skb, 16, &type, 2, 0) < 0 || bpf_skb_vlan_pop(skb) < 0)
		return -1;
	/* The kernel would like to put a tag that comes to light in metadata; it may be cut off. */
	if (bpf_skb_vlan_pop(skb) < 0 && !is_vlan(type))
		return -1;
	if (tags > 1 && bpf_skb_vlan_push(skb, tag[1][0], bpf_ntohs(tag[1][1])) < 0)
		return -1;
	if (tags && bpf_skb_vlan_push(skb, tag[0][0], bpf_ntohs(tag[0][1])) < 0)
		return -1;
	p->metadata_tag = skb->vlan_present ? 1 : 0;
	p->frame_tags = tags ? tags - 1 : 0;
	p->network = ETH_HEADER_BYTES + p->frame_tags * VLAN_TAG_BYTES;
	p->length = skb->len;
	return 0;
}

static __always_inline int pop_mpls(struct packet *p, struct hook hook, u16 type)
{
	if (!LAYER_IS(p, LAYER_MPLS))
		return 0;
	p->key.f.eth_type = type;
	p->key.f.layers = p->layers = 0;
	if (hook.tc)
		return remove_at_tc(p, hook.skb, type);
	p->length -= ENTRY_BYTES;
	return remove_at_xdp(p, hook, type);
}

/* ── fields ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────── */
/* `value` and `mask` are of the entry in host order. */
static __always_inline int set_mpls(struct packet *p, struct hook hook, u32 mask, u32 value)
{
	if (!LAYER_IS(p, LAYER_MPLS))
		return 0;
	u32 entry = (p->key.f.mpls & ~bpf_htonl(mask)) | bpf_htonl(value);
	p->key.f.mpls = entry;
	return store(p, hook, p->network, &entry, ENTRY_BYTES, 1);
}

/* ── copied TTLs ───────────────────────────────────────────────────────────────────────────────────────────────────────────────── */
/* Where the TTL behind the outermost is: a byte, with the IPv4 checksum two further if `summed`. */
struct next_ttl {
	u32 offset;
	u32 summed;
};

/* Of the IP header at `at`, from the network header; 0 if there is none, or not of `version` (0: of any). */
static __always_inline int find_ip_ttl(struct packet *p, struct hook hook, u32 at, u32 version, struct next_ttl *next)
{
	u8 first = 0;
	u32 end = min_u32(frame_length(hook) - p->network, NETWORK_MAX);

	if (at >= end || load(hook, p->network + at, &first, 1) < 0 || (version && version != first >> 4))
		return 0;
	if (first >> 4 == 4 && (first & 15) >= 5 && at + (first & 15) * 4 <= end) {
		next->offset = p->network + at + 8;
		next->summed = 1;
		return 1;
	}
	next->offset = p->network + at + 7;
	next->summed = 0;
	return first >> 4 == 6 && at + sizeof(struct ipv6_header) <= end;
}

static __always_inline int find_next_ttl(struct packet *p, struct hook hook, struct next_ttl *next)
{
	if (LAYER_IS(p, LAYER_MPLS)) {
		if (p->key.f.mpls & bpf_htonl(ENTRY_BOS))
			return find_ip_ttl(p, hook, ENTRY_BYTES, 0, next);
		u32 entry;
		next->offset = p->network + 2 * ENTRY_BYTES - 1;
		next->summed = 0;
		return load(hook, p->network + ENTRY_BYTES, &entry, ENTRY_BYTES) == 0;
	}
	if (!LAYER_IS(p, LAYER_IPV4 | LAYER_IPV6) || p->key.f.ip_frag == FRAGMENT_LATER)
		return 0;
	if (p->key.f.ip_proto == PROTO_IPIP)
		return find_ip_ttl(p, hook, p->l4, 4, next);
	if (p->key.f.ip_proto == PROTO_IPV6)
		return find_ip_ttl(p, hook, p->l4, 6, next);
	return 0;
}

static __always_inline int copy_ttl_out(struct packet *p, struct hook hook)
{
	struct next_ttl next;
	u8 ttl;

	if (!find_next_ttl(p, hook, &next))
		return 0;
	if (load(hook, next.offset, &ttl, 1) < 0)
		return -1;
	return LAYER_IS(p, LAYER_MPLS) ? set_mpls(p, hook, ENTRY_TTL, ttl) : set_ttl(p, hook, ttl);
}

static __always_inline int copy_ttl_in(struct packet *p, struct hook hook)
{
	struct next_ttl next;
	u16 word; /* the TTL and what IPv4's checksum covers with it */
	u8 ttl = LAYER_IS(p, LAYER_MPLS) ? bpf_ntohl(p->key.f.mpls) & ENTRY_TTL : p->key.f.ip_ttl;

	if (!find_next_ttl(p, hook, &next))
		return 0;
	if (!next.summed)
		return store(p, hook, next.offset, &ttl, 1, 1);
	if (load(hook, next.offset, &word, 2) < 0)
		return -1;
	u16 new = bpf_htons(ttl << 8 | (bpf_ntohs(word) & 0xff));
	u32 difference = add_sums(~(u32)word, new);
	if (hook.tc) {
		if (bpf_l3_csum_replace(hook.skb, next.offset + 2, 0, difference, 0) < 0)
			return -1;
	} else {
		u16 *sum = frame_at(hook, next.offset + 2, 2);
		if (!sum)
			return -1;
		*sum = replace_sum(*sum, difference);
	}
	return store(p, hook, next.offset, &ttl, 1, 0);
}
