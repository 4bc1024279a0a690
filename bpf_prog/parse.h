/* SPDX-License-Identifier: GPL-2.0 */
/* Frame → flow key. appliance/packet/parse.py is the reference, and its docstring has the rules.
 *
 * Bounds are checked before every read; a header that is not whole leaves its part of the key 0 and its layer bit unset.
 */
#pragma once

#define NETWORK_MAX (MAX_HEADER_BYTES - ETH_HEADER_BYTES) /* headers end within this, seen from the network header */

struct eth_header {
	u8 dst[6];
	u8 src[6];
	__be16 type;
};

struct vlan_tag {
	__be16 tci;
	__be16 type;
};

struct arp_header {
	__be16 htype;
	__be16 ptype;
	u8 hlen;
	u8 plen;
	__be16 op;
	u8 sha[6];
	u8 spa[4];
	u8 tha[6];
	u8 tpa[4];
};

struct ipv4_header {
	u8 version_ihl;
	u8 tos;
	__be16 length;
	__be16 id;
	__be16 fragment;
	u8 ttl;
	u8 proto;
	u16 checksum;
	__be32 src;
	__be32 dst;
};

struct ipv6_header {
	__be32 version_class_label;
	__be16 length;
	u8 next_header;
	u8 hop_limit;
	u64 src[2];
	u64 dst[2];
};

/* The `size` bytes at `offset` after `base`, or NULL; sets `cut` if they run over the end of the memory at hand. */
static __always_inline void *header_at(struct packet *p, void *base, void *end, u32 offset, u32 size)
{
	if (offset > NETWORK_MAX - size)
		return NULL;
	void *header = base + offset;
	if (header + size > end) {
		p->cut = 1;
		return NULL;
	}
	return header;
}

static __always_inline void parse_nd(struct packet *p, void *base, void *end, u32 offset, u32 type)
{
	u64 *target = header_at(p, base, end, offset + 8, 16);
	if (!target)
		return;
	u64 *place = (u64 *)p->key.f.nd_target;
	place[0] = target[0];
	place[1] = target[1];
	p->key.f.layers |= bpf_htons(LAYER_ND);
	offset += 24;
	no_unroll for (int i = 0; i < MAX_ND_OPTIONS; i++) {
		u8 *option = header_at(p, base, end, offset, 2);
		if (!option)
			break;
		u32 kind = option[0], length = option[1] * 8;
		if (!length)
			break;
		u16 *address = header_at(p, base, end, offset, 8);
		if (!address)
			break;
		if (length > 8 && !(offset + length <= NETWORK_MAX && base + offset + length <= end)) {
			p->cut = 1;
			break;
		}
		if (length == 8 && type == 135 && kind == 1 && !p->nd_sll) {
			__builtin_memcpy(p->key.f.nd_sll, address + 1, 6);
			p->key.f.layers |= bpf_htons(LAYER_ND_SLL);
			p->nd_sll = offset + 2;
		}
		if (length == 8 && type == 136 && kind == 2 && !p->nd_tll) {
			__builtin_memcpy(p->key.f.nd_tll, address + 1, 6);
			p->key.f.layers |= bpf_htons(LAYER_ND_TLL);
			p->nd_tll = offset + 2;
		}
		offset += length;
	}
}

static __always_inline void parse_l4(struct packet *p, void *base, void *end, u32 offset, u32 ipv6)
{
	u32 proto = p->key.f.ip_proto;

	p->l4 = offset;
	if (proto == PROTO_TCP) {
		u16 *tcp = header_at(p, base, end, offset, 20);
		if (!tcp)
			return;
		p->key.f.l4_src = tcp[0];
		p->key.f.l4_dst = tcp[1];
		p->key.f.tcp_flags = tcp[6] & bpf_htons(0x0fff);
		p->key.f.layers |= bpf_htons(LAYER_TCP);
	} else if (proto == PROTO_UDP) {
		u16 *udp = header_at(p, base, end, offset, 8);
		if (!udp)
			return;
		p->key.f.l4_src = udp[0];
		p->key.f.l4_dst = udp[1];
		p->key.f.layers |= bpf_htons(LAYER_UDP);
	} else if (proto == PROTO_SCTP) {
		u16 *sctp = header_at(p, base, end, offset, 12);
		if (!sctp)
			return;
		p->key.f.l4_src = sctp[0];
		p->key.f.l4_dst = sctp[1];
		p->key.f.layers |= bpf_htons(LAYER_SCTP);
	} else if (proto == (ipv6 ? PROTO_ICMPV6 : PROTO_ICMP)) {
		u8 *icmp = header_at(p, base, end, offset, 4);
		if (!icmp)
			return;
		u32 type = icmp[0], code = icmp[1];
		p->key.f.l4_src = bpf_htons(type);
		p->key.f.l4_dst = bpf_htons(code);
		p->key.f.layers |= bpf_htons(LAYER_ICMP);
		if (ipv6 && (type == 135 || type == 136) && code == 0)
			parse_nd(p, base, end, offset, type);
	}
}

static __always_inline void parse_ipv4(struct packet *p, void *base, void *end)
{
	struct ipv4_header *ip = header_at(p, base, end, 0, sizeof(*ip));
	if (!ip)
		return;
	u32 bytes = (ip->version_ihl & 0xf) * 4;
	if (ip->version_ihl >> 4 != 4 || bytes < sizeof(*ip))
		return;
	if (!header_at(p, base, end, bytes, 0))
		return;
	*(__be32 *)(p->key.f.ip_src + 12) = ip->src;
	*(__be32 *)p->key.f.ip_dst = ip->dst;
	p->key.f.ip_proto = ip->proto;
	p->key.f.ip_tos = ip->tos;
	p->key.f.ip_ttl = ip->ttl;
	p->key.f.layers |= bpf_htons(LAYER_IPV4);
	p->next_header = 9;
	__be16 fragment = ip->fragment;
	if (fragment & bpf_htons(0x1fff)) {
		p->key.f.ip_frag = FRAGMENT_LATER;
		return;
	}
	if (fragment & bpf_htons(0x2000))
		p->key.f.ip_frag = FRAGMENT_FIRST;
	parse_l4(p, base, end, bytes, 0);
}

/* The seven extension headers, told apart without a branch (the verifier follows every branch): (number * 33 >> 3 & 7) is another
 * for each of 0, 43, 44, 50, 51, 59 and 60, and byte n of a constant is what we want to know of the one with index n. */
#define EXTENSION_HEADERS (1ULL << PROTO_HOP | 1ULL << PROTO_ROUTER | 1ULL << PROTO_FRAG | 1ULL << PROTO_ESP | 1ULL << PROTO_AUTH | \
			   1ULL << PROTO_NONEXT | 1ULL << PROTO_DEST)
#define EXT_INDEX(n) (((n) * 33 >> 3) & 7)
#define EXT_BYTE(n, value) ((u64)(value) << (8 * EXT_INDEX(n)))
#define EXT_TABLE(hop, router, frag, esp, auth, nonext, dest)                                                                       \
	(EXT_BYTE(PROTO_HOP, hop) | EXT_BYTE(PROTO_ROUTER, router) | EXT_BYTE(PROTO_FRAG, frag) | EXT_BYTE(PROTO_ESP, esp) |        \
	 EXT_BYTE(PROTO_AUTH, auth) | EXT_BYTE(PROTO_NONEXT, nonext) | EXT_BYTE(PROTO_DEST, dest))
#define EXT_BITS EXT_TABLE(64, 32, 16, 2, 4, 1, 8)	/* OFPIEH_* */
#define EXT_RANKS EXT_TABLE(0, 2, 3, 5, 4, 6, 1)	/* the order that RFC 8200 prefers; DEST again after any but HOP is 6 */
#define EXT_SHIFTS EXT_TABLE(3, 3, 3, 3, 2, 3, 3)	/* the length's unit */
#define EXT_ADDS EXT_TABLE(1, 1, 1, 1, 2, 1, 1)		/* units that the length does not count */
#define EXT_MASKS EXT_TABLE(255, 255, 0, 255, 255, 255, 255) /* FRAG has no length */

/* The extension headers so far. */
struct chain {
	u32 seen; /* OFPIEH_* */
	u32 dests;
	u32 rank; /* the highest */
	u32 twice;
	u32 unordered;
};

/* One more header, the one at `at` of the tables. */
static __always_inline void note_header(struct chain *c, u32 at)
{
	u32 bit = EXT_BITS >> at & 0xff, rank = EXT_RANKS >> at & 0xff;
	u32 is_dest = bit >> 3 & 1, is_seen = !!(c->seen & bit), router = c->seen >> 5 & 1;

	/* A second DEST is no repetition after a ROUTER; DEST's rank is 6 once anything but HOP came before it. */
	u32 repeats_dest = c->dests >> 1 | (c->dests & ~router & 1);
	rank += (is_dest & !!(c->seen & (32 | 16 | 4 | 2))) * 5;
	c->twice |= (is_dest & !!repeats_dest) | (~is_dest & is_seen & 1);
	c->unordered |= rank < c->rank;
	c->rank = rank > c->rank ? rank : c->rank;
	c->seen |= bit;
	c->dests += is_dest;
}

static __always_inline void parse_ipv6(struct packet *p, void *base, void *end)
{
	struct ipv6_header *ip = header_at(p, base, end, 0, sizeof(*ip));
	if (!ip)
		return;
	u32 first = bpf_ntohl(ip->version_class_label);
	if (first >> 28 != 6)
		return;
	u64 *src = (u64 *)p->key.f.ip_src, *dst = (u64 *)p->key.f.ip_dst;
	src[0] = ip->src[0];
	src[1] = ip->src[1];
	dst[0] = ip->dst[0];
	dst[1] = ip->dst[1];
	p->key.f.ip_tos = first >> 20;
	p->key.f.ipv6_flabel = bpf_htonl(first & 0xfffff);
	p->key.f.ip_ttl = ip->hop_limit;
	p->key.f.layers |= bpf_htons(LAYER_IPV6);
	p->next_header = 6;

	struct chain chain = {};
	u32 proto = ip->next_header, offset = sizeof(*ip), more = 1, frag = FRAGMENT_NONE;
	no_unroll for (int i = 0; i < MAX_IPV6_EXTENSION_HEADERS; i++) {
		if (proto > 63 || !((1ULL << proto) & EXTENSION_HEADERS))
			break;
		u32 at = EXT_INDEX(proto) * 8;
		if (proto == PROTO_ESP || proto == PROTO_NONEXT) {
			note_header(&chain, at); /* and nothing behind it */
			more = 0;
			break;
		}
		u8 *header = header_at(p, base, end, offset, 8);
		if (!header) {
			more = 0;
			break;
		}
		u32 units = header[1] & (EXT_MASKS >> at & 0xff);
		u32 length = (units + (EXT_ADDS >> at & 0xff)) << (EXT_SHIFTS >> at & 3);
		opaque(length); /* the compiler knows that the mask changes nothing, the verifier does not */
		length &= 0xfff;
		if (offset + length > NETWORK_MAX) {
			more = 0;
			break;
		}
		if ((void *)header + length > end) {
			p->cut = 1;
			more = 0;
			break;
		}
		note_header(&chain, at);
		p->next_header = offset;
		u32 is_fragment = proto == PROTO_FRAG;
		proto = header[0];
		if (is_fragment) {
			u32 where = bpf_ntohs(*(__be16 *)(header + 2));
			if (where & 0xfff8) {
				frag = FRAGMENT_LATER;
				more = 0;
				break;
			}
			if (where & 1)
				frag = FRAGMENT_FIRST;
		}
		offset += length;
		offset &= 0x1ff;
	}
	if (proto < 64 && (1ULL << proto) & EXTENSION_HEADERS)
		more = 0; /* a chain longer than we follow */
	p->key.f.ip_proto = proto;
	p->key.f.ip_frag = frag;
	p->key.f.ipv6_exthdr = bpf_htons((chain.seen & 0x7f) | chain.twice << 7 | chain.unordered << 8);
	if (more)
		parse_l4(p, base, end, offset, 1);
}

static __always_inline void parse_arp(struct packet *p, void *base, void *end)
{
	struct arp_header *arp = header_at(p, base, end, 0, sizeof(*arp));
	if (!arp || arp->htype != bpf_htons(1) || arp->ptype != bpf_htons(ETHERTYPE_IPV4) || arp->hlen != 6 || arp->plen != 4)
		return;
	p->key.f.l4_src = arp->op;
	__builtin_memcpy(p->key.f.ip_src + 12, arp->spa, 4);
	__builtin_memcpy(p->key.f.ip_dst, arp->tpa, 4);
	__builtin_memcpy(p->key.f.nd_sll, arp->sha, 6);
	__builtin_memcpy(p->key.f.nd_tll, arp->tha, 6);
	p->key.f.layers |= bpf_htons(LAYER_ARP);
}

static __always_inline int is_vlan(__be16 type)
{
	return type == bpf_htons(ETHERTYPE_VLAN) || type == bpf_htons(ETHERTYPE_QINQ);
}

static __always_inline u16 key_tci(u16 tci)
{
	return bpf_htons((tci & ~VLAN_PRESENT) | VLAN_PRESENT);
}

/* Fills in the key but for in_port. `tci` is that of a tag in metadata, as it is in the key, if there is one. False for a runt. */
static __always_inline int parse(struct packet *p, void *data, void *end, u16 tci)
{
	struct eth_header *eth = data;

	__builtin_memset(&p->key, 0, sizeof(p->key));
	p->cut = 0;
	p->l4 = p->next_header = p->nd_sll = p->nd_tll = 0;
	if (data + sizeof(*eth) > end)
		return 0;
	*(u64 *)p->key.f.eth_dst = *(u64 *)data; /* and the start of the source */
	*(u32 *)(p->key.f.eth_src + 2) = *(u32 *)(data + 8);
	__be16 type = eth->type;

	u32 tags = 0;
	void *base = data + sizeof(*eth);
	if (p->metadata_tag) {
		p->key.f.vlan_tci = tci;
		tags = 1;
	}
	p->frame_tags = 0;
	no_unroll for (int i = 0; i < MAX_VLAN_TAGS; i++) {
		if (tags >= MAX_VLAN_TAGS || !is_vlan(type))
			break;
		struct vlan_tag *tag = base;
		if (base + sizeof(*tag) > end) {
			p->cut = 1;
			break;
		}
		if (tags)
			p->key.f.inner_vlan_tci = key_tci(bpf_ntohs(tag->tci));
		else
			p->key.f.vlan_tci = key_tci(bpf_ntohs(tag->tci));
		type = tag->type;
		base += sizeof(*tag);
		tags++;
		p->frame_tags++;
	}
	p->key.f.eth_type = type;
	p->network = ETH_HEADER_BYTES + p->frame_tags * VLAN_TAG_BYTES;

	if (type == bpf_htons(ETHERTYPE_IPV4)) {
		parse_ipv4(p, base, end);
	} else if (type == bpf_htons(ETHERTYPE_IPV6)) {
		parse_ipv6(p, base, end);
	} else if (type == bpf_htons(ETHERTYPE_ARP)) {
		parse_arp(p, base, end);
	} else if (type == bpf_htons(ETHERTYPE_MPLS) || type == bpf_htons(ETHERTYPE_MPLS_MULTICAST)) {
		u32 *label = header_at(p, base, end, 0, 4);
		if (label) {
			p->key.f.mpls = *label;
			p->key.f.layers |= bpf_htons(LAYER_MPLS);
		}
	} else if (type == bpf_htons(ETHERTYPE_PBB)) {
		u32 *tci = header_at(p, base, end, 0, 16);
		if (tci) {
			p->key.f.pbb = *tci & bpf_htonl(0xffffff);
			p->key.f.layers |= bpf_htons(LAYER_PBB);
		}
	}
	return 1;
}
