/* SPDX-License-Identifier: GPL-2.0 */
/* Changes to the packet, and the checksums that follow. appliance/packet/rewrite.py is the reference.
 *
 * The old value of a field is the key's, and each change is made in the key too. At TC the kernel's helpers do the work, because they
 * know partial checksums, segmentation offload and shared data; at XDP there is only the frame. All return 0, or less when the
 * packet could not be changed. `hook.tc` is a constant in each program, so that it holds its own half only.
 */
#pragma once

/* The memory of `size` bytes at `offset`, at XDP. */
static __always_inline void *frame_at(struct hook hook, u32 offset, u32 size)
{
	void *data = (void *)(long)hook.xdp->data, *end = (void *)(long)hook.xdp->data_end;
	void *at = data + (offset & 0x3ff);
	return at + size > end ? NULL : at;
}

/* `recompute`: nothing else that changes makes up for it in the checksum over the whole packet that some drivers give. */
static __always_inline int store(struct packet *p, struct hook hook, u32 offset, const void *from, u32 size, int recompute)
{
	if (hook.tc)
		return bpf_skb_store_bytes(hook.skb, offset, (void *)from, size, recompute ? BPF_F_RECOMPUTE_CSUM : 0);
	void *to = frame_at(hook, offset, size);
	if (!to)
		return -1;
	__builtin_memcpy(to, from, size);
	return 0;
}

/* The checksum after a change of the sum by `difference` (RFC 1624), as the kernel computes it. */
static __always_inline u16 replace_sum(u16 checksum, u32 difference)
{
	u64 sum = (u64)(u32)~(u32)checksum + difference;
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

#define LAYER_IS(p, which) ((p)->key.f.layers & bpf_htons(which))
/* By the headers as they were parsed: a tag that was pushed meanwhile may hide them. */
#define PARSED(p, which) ((p)->layers & bpf_htons(which))

/* Changes are summed up, and OP_CHECKSUMS enters them in the packet: once for all of them, and one place for the verifier to go through. */
static __always_inline u32 add_sums(u32 a, u32 b)
{
	u64 sum = (u64)a + b;
	return (sum & 0xffffffff) + (sum >> 32);
}

static __always_inline void forget_changes(struct packet *p)
{
	p->ipv4_difference = p->l4_difference = p->pseudo_difference = p->sctp_change = 0;
}

/* `from` and `to` are the unfolded sums of the old and the new bytes. */
static __always_inline void ipv4_changed(struct packet *p, u32 from, u32 to)
{
	p->ipv4_difference = add_sums(p->ipv4_difference, add_sums(~from, to));
}

static __always_inline void l4_changed(struct packet *p, u32 from, u32 to)
{
	p->l4_difference = add_sums(p->l4_difference, add_sums(~from, to));
}

static __always_inline void pseudo_header_changed(struct packet *p, u32 from, u32 to)
{
	p->pseudo_difference = add_sums(p->pseudo_difference, add_sums(~from, to));
}

static __always_inline int fix_ipv4_checksum(struct packet *p, struct hook hook, u32 difference)
{
	u32 offset = p->network + 10;
	if (hook.tc)
		return bpf_l3_csum_replace(hook.skb, offset, 0, difference, 0);
	u16 *sum = frame_at(hook, offset, 2);
	if (!sum)
		return -1;
	*sum = replace_sum(*sum, difference);
	return 0;
}

static __always_inline int fix_l4_checksum(struct packet *p, struct hook hook, u32 difference, u64 flags, u32 offset)
{
	if (hook.tc)
		return bpf_l4_csum_replace(hook.skb, offset, 0, difference, flags);
	u16 *sum = frame_at(hook, offset, 2);
	if (!sum)
		return -1;
	if (flags & BPF_F_MARK_MANGLED_0 && !*sum)
		return 0;
	u16 replaced = replace_sum(*sum, difference);
	*sum = flags & BPF_F_MARK_MANGLED_0 && !replaced ? 0xffff : replaced;
	return 0;
}

/* ── SCTP ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
 * CRC32c is linear: the change of the checksum is the CRC, from 0, of the change of the bytes followed by n zero bytes. To append
 * 2^k zero bytes is a linear map of 32 bits, four table look-ups; n takes as many of them as it has bits. */
static __always_inline u32 crc_append_zeros(u32 value, u32 bytes)
{
	no_unroll for (u32 k = 0; k < CRC_SHIFTS; k++) {
		u32 power = k;
		struct crc_shift *shift = crc_shifts.lookup(&power);
		if (!shift)
			return value;
		if (bytes >> k & 1)
			value = shift->table[0][value & 0xff] ^ shift->table[1][value >> 8 & 0xff] ^ shift->table[2][value >> 16 & 0xff] ^
				shift->table[3][value >> 24];
	}
	return value;
}

/* After the first four bytes of the SCTP header, its ports, changed by `change` (network order, xor of old and new). */
static __always_inline int fix_sctp_checksum(struct packet *p, struct hook hook, u32 change)
{
	u16 length;
	u32 sum, behind, at = p->network + p->l4;
	u32 ipv6 = PARSED(p, LAYER_IPV6);

	if (hook.tc) {
		if (bpf_skb_load_bytes(hook.skb, p->network + (ipv6 ? 4 : 2), &length, 2) < 0 || bpf_skb_load_bytes(hook.skb, at + 8, &sum, 4) < 0)
			return -1;
	} else {
		u16 *total = frame_at(hook, p->network + (ipv6 ? 4 : 2), 2);
		if (!total)
			return -1;
		length = *total;
		u32 *old = frame_at(hook, at + 8, 4);
		if (!old)
			return -1;
		sum = *old;
	}
	if (!sum)
		return 0; /* a local stack left it to the device */
	/* The bytes of the IP packet behind the ports; none of them if its length is nonsense. */
	behind = bpf_ntohs(length) + (ipv6 ? 40 : 0) - p->l4 - 4;
	if (behind > 0xfffb)
		return 0;
	/* The CRC of `change` itself is that of four zero bytes appended to it. CRC32c is sent least significant byte first, so what
	 * a little-endian machine reads from the frame is its value. */
	sum ^= crc_append_zeros(change, behind + 4);
	return store(p, hook, at + 8, &sum, 4, 0);
}

static __always_inline int fix_checksums(struct packet *p, struct hook hook)
{
	u32 offset = p->network + p->l4, summed = 1;
	u64 flags = 0;

	if (p->ipv4_difference && fix_ipv4_checksum(p, hook, p->ipv4_difference) < 0)
		return -1;
	if (PARSED(p, LAYER_TCP)) {
		offset += 16;
	} else if (PARSED(p, LAYER_UDP)) {
		offset += 6;
		flags = BPF_F_MARK_MANGLED_0;
	} else if (PARSED(p, LAYER_ICMP)) {
		offset += 2;
		if (!PARSED(p, LAYER_IPV6))
			p->pseudo_difference = 0; /* ICMP's checksum covers none */
	} else {
		summed = 0;
	}
	if (summed && p->l4_difference && fix_l4_checksum(p, hook, p->l4_difference, flags, offset) < 0)
		return -1;
	if (summed && p->pseudo_difference && fix_l4_checksum(p, hook, p->pseudo_difference, flags | BPF_F_PSEUDO_HDR, offset) < 0)
		return -1;
	if (p->sctp_change && fix_sctp_checksum(p, hook, p->sctp_change) < 0)
		return -1;
	forget_changes(p);
	return 0;
}

/* ── fields ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────── */
static __always_inline int set_mac(struct packet *p, struct hook hook, u32 offset, u8 *in_key, const u16 *mac, int recompute)
{
	u16 *key = (u16 *)in_key;
	key[0] = mac[0];
	key[1] = mac[1];
	key[2] = mac[2];
	return store(p, hook, offset, mac, 6, recompute);
}

static __always_inline int set_ipv4(struct packet *p, struct hook hook, u32 offset, u8 *in_key, u32 address)
{
	u32 *key = (u32 *)in_key;
	u32 old = *key;
	*key = address;
	ipv4_changed(p, old, address);
	pseudo_header_changed(p, old, address);
	return store(p, hook, p->network + offset, &address, 4, 0);
}

/* The unfolded sum of 16 bytes. */
static __always_inline u32 sum16(const u32 *w)
{
	u64 sum = (u64)w[0] + w[1] + w[2] + w[3];
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (sum & 0xffffffff) + (sum >> 32);
}

static __always_inline int set_ipv6(struct packet *p, struct hook hook, u32 offset, u8 *in_key, int checksummed)
{
	u64 *key = (u64 *)in_key;
	const u64 *value = p->operand;
	u32 old = sum16((u32 *)key), new = sum16((u32 *)value);

	key[0] = value[0];
	key[1] = value[1];
	if (checksummed)
		pseudo_header_changed(p, old, new);
	return store(p, hook, p->network + offset, value, 16, 1);
}

static __always_inline int set_nd_target(struct packet *p, struct hook hook)
{
	u64 *key = (u64 *)p->key.f.nd_target;
	const u64 *value = p->operand;
	u32 old = sum16((u32 *)key), new = sum16((u32 *)value);

	key[0] = value[0];
	key[1] = value[1];
	l4_changed(p, old, new);
	return store(p, hook, p->network + p->l4 + 8, value, 16, 0);
}

static __always_inline int set_nd_address(struct packet *p, struct hook hook, u32 offset, u8 *in_key, const u16 *mac)
{
	u16 *key = (u16 *)in_key;
	u32 old = (u32)key[0] + key[1] + key[2], new = (u32)mac[0] + mac[1] + mac[2];

	key[0] = mac[0];
	key[1] = mac[1];
	key[2] = mac[2];
	l4_changed(p, old, new);
	return store(p, hook, p->network + offset, mac, 6, 0);
}

/* The first word of an IPv6 header, from the key. */
static __always_inline int store_ipv6_first(struct packet *p, struct hook hook)
{
	u32 word = bpf_htonl(6u << 28 | (u32)p->key.f.ip_tos << 20) | p->key.f.ipv6_flabel;
	return store(p, hook, p->network, &word, 4, 1);
}

static __always_inline int set_tos(struct packet *p, struct hook hook, u32 mask, u32 value)
{
	u8 old = p->key.f.ip_tos, new = (old & ~mask) | (value & mask);

	p->key.f.ip_tos = new;
	if (LAYER_IS(p, LAYER_IPV6))
		return store_ipv6_first(p, hook);
	if (!LAYER_IS(p, LAYER_IPV4))
		return 0;
	ipv4_changed(p, bpf_htons(old), bpf_htons(new));
	return store(p, hook, p->network + 1, &new, 1, 0);
}

static __always_inline int set_ttl(struct packet *p, struct hook hook, u8 new)
{
	u8 old = p->key.f.ip_ttl;

	p->key.f.ip_ttl = new;
	if (LAYER_IS(p, LAYER_IPV6))
		return store(p, hook, p->network + 7, &new, 1, 1);
	if (!LAYER_IS(p, LAYER_IPV4))
		return 0;
	ipv4_changed(p, bpf_htons(old << 8), bpf_htons(new << 8));
	return store(p, hook, p->network + 8, &new, 1, 0);
}

static __always_inline int set_ip_proto(struct packet *p, struct hook hook, u8 new)
{
	u8 old = p->key.f.ip_proto;

	if (!LAYER_IS(p, LAYER_IPV4 | LAYER_IPV6))
		return 0;
	p->key.f.ip_proto = new;
	if (LAYER_IS(p, LAYER_IPV4))
		ipv4_changed(p, bpf_htons(old), bpf_htons(new));
	pseudo_header_changed(p, bpf_htons(old), bpf_htons(new));
	return store(p, hook, p->network + p->next_header, &new, 1, LAYER_IS(p, LAYER_IPV6) ? 1 : 0);
}

static __always_inline int set_l4_port(struct packet *p, struct hook hook, u32 second, u16 new)
{
	u16 *key = second ? &p->key.f.l4_dst : &p->key.f.l4_src;
	u16 old = *key;

	*key = new;
	if (LAYER_IS(p, LAYER_SCTP)) {
		u16 *change = (u16 *)&p->sctp_change;
		change[second] ^= old ^ new;
	} else {
		l4_changed(p, old, new);
	}
	return store(p, hook, p->network + p->l4 + (second ? 2 : 0), &new, 2, 0);
}

static __always_inline int set_icmp(struct packet *p, struct hook hook, u32 second, u8 new)
{
	u16 *key = second ? &p->key.f.l4_dst : &p->key.f.l4_src;
	u32 shift = second ? 0 : 8;
	u16 old = bpf_ntohs(*key);

	*key = bpf_htons(new);
	l4_changed(p, bpf_htons(old << shift), bpf_htons(new << shift));
	return store(p, hook, p->network + p->l4 + (second ? 1 : 0), &new, 1, 0);
}

/* ── tags ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────── */
/* The parser looks through MAX_VLAN_TAGS tags: one more hides what is behind it, until it is popped. A packet that comes with more
 * is never popped here (MEGAFLOW_POPS). */
static __always_inline u32 hidden_tags(const struct packet *p)
{
	u32 tags = p->frame_tags + p->metadata_tag;
	return tags > MAX_VLAN_TAGS ? tags - MAX_VLAN_TAGS : 0;
}

/* `before` is how many there were in the frame. */
static __always_inline void tags_changed(struct packet *p, u32 before)
{
	p->length += (p->frame_tags - before) * VLAN_TAG_BYTES;
	p->network = ETH_HEADER_BYTES + p->frame_tags * VLAN_TAG_BYTES;
	if (hidden_tags(p))
		p->key.f.layers = 0;
	else
		p->key.f.layers = p->layers;
}

/* In the frame, at XDP. */
static __always_inline int push_frame_tag(struct hook hook, u16 tpid, u16 tci)
{
	if (bpf_xdp_adjust_head(hook.xdp, -VLAN_TAG_BYTES) < 0)
		return -1;
	u32 *to = frame_at(hook, 0, ETH_HEADER_BYTES + VLAN_TAG_BYTES);
	if (!to)
		return -1;
	to[0] = to[1];
	to[1] = to[2];
	to[2] = to[3];
	to[3] = bpf_htonl((u32)tpid << 16 | tci);
	return 0;
}

static __always_inline int push_tag(struct packet *p, struct hook hook, u16 tpid, u16 tci)
{
	u32 before = p->frame_tags;

	if (hook.tc) {
		if (bpf_skb_vlan_push(hook.skb, bpf_htons(tpid), tci) < 0)
			return -1;
		p->frame_tags += p->metadata_tag;
		p->metadata_tag = 1;
	} else {
		if (push_frame_tag(hook, tpid, tci) < 0)
			return -1;
		p->frame_tags++;
	}
	tags_changed(p, before);
	p->key.f.inner_vlan_tci = p->key.f.vlan_tci;
	p->key.f.vlan_tci = key_tci(tci);
	return 0;
}

static __always_inline int pop_tag(struct packet *p, struct hook hook)
{
	u32 before = p->frame_tags;

	if (!(p->frame_tags + p->metadata_tag))
		return 0;
	if (hook.tc) {
		/* The kernel keeps the outermost tag in metadata: the next one moves there out of the frame. */
		if (bpf_skb_vlan_pop(hook.skb) < 0)
			return -1;
		u32 tags = p->frame_tags + p->metadata_tag - 1;
		p->metadata_tag = tags > 0;
		p->frame_tags = tags - p->metadata_tag;
	} else {
		u32 *from = frame_at(hook, 0, ETH_HEADER_BYTES + VLAN_TAG_BYTES);
		if (!from)
			return -1;
		from[3] = from[2];
		from[2] = from[1];
		from[1] = from[0];
		if (bpf_xdp_adjust_head(hook.xdp, VLAN_TAG_BYTES) < 0)
			return -1;
		p->frame_tags--;
	}
	tags_changed(p, before);
	p->key.f.vlan_tci = p->key.f.inner_vlan_tci;
	p->key.f.inner_vlan_tci = 0;
	return 0;
}

static __always_inline int set_vlan(struct packet *p, struct hook hook, u16 mask, u16 value)
{
	u16 tci;

	if (!(p->frame_tags + p->metadata_tag))
		return 0;
	if (hook.tc && p->metadata_tag) {
		u16 tpid = hook.skb->vlan_proto;
		tci = (hook.skb->vlan_tci & ~mask) | value;
		p->key.f.vlan_tci = key_tci(tci);
		if (bpf_skb_vlan_pop(hook.skb) < 0)
			return -1;
		return bpf_skb_vlan_push(hook.skb, tpid, tci);
	}
	if (hook.tc) {
		if (bpf_skb_load_bytes(hook.skb, ETH_HEADER_BYTES, &tci, 2) < 0)
			return -1;
	} else {
		u16 *in_frame = frame_at(hook, ETH_HEADER_BYTES, 2);
		if (!in_frame)
			return -1;
		tci = *in_frame;
	}
	tci = (bpf_ntohs(tci) & ~mask) | value;
	p->key.f.vlan_tci = key_tci(tci);
	tci = bpf_htons(tci);
	return store(p, hook, ETH_HEADER_BYTES, &tci, 2, 1);
}
