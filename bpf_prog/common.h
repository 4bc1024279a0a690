/* SPDX-License-Identifier: GPL-2.0 */
/* Constants of the wire formats, and the packet while it is handled. */
#pragma once

#define __always_inline inline __attribute__((always_inline))

#define ETH_HEADER_BYTES 14
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ETH_DST_BITS 0x0000ffffffffffff /* of a frame's first 8 bytes */
#else
#define ETH_DST_BITS 0xffffffffffff0000
#endif
#define VLAN_TAG_BYTES 4

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_MPLS 0x8847
#define ETHERTYPE_MPLS_MULTICAST 0x8848
#define ETHERTYPE_QINQ 0x88a8
#define ETHERTYPE_PBB 0x88e7

#define PROTO_HOP 0
#define PROTO_ICMP 1
#define PROTO_IPIP 4
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_IPV6 41
#define PROTO_ROUTER 43
#define PROTO_FRAG 44
#define PROTO_ESP 50
#define PROTO_AUTH 51
#define PROTO_ICMPV6 58
#define PROTO_NONEXT 59
#define PROTO_DEST 60
#define PROTO_SCTP 132

#define EXTHDR_ROUTER (1 << 5)

#define VLAN_PRESENT 0x1000 /* OFPVID_PRESENT: in the key in the place of the frame's drop-eligible bit */

/* Which program runs, and its context: one of the two pointers is NULL. */
struct hook {
	int tc;
	struct __sk_buff *skb;
	struct xdp_md *xdp;
};

union key {
	struct flow_key f;
	u64 w[KEY_WORDS];
};

/* The kernel's struct bpf_tunnel_key as of 6.0: older headers have no local address. */
struct tunnel_key {
	u32 id;
	u32 remote[4];
	u8 tos;
	u8 ttl;
	u16 flags;
	u32 label;
	u32 local[4];
};

/* A packet while it is handled. It lies in a map, this CPU's scratch memory: the stack is too small, and the verifier, which follows
 * every value on the stack, takes what comes out of a map as unknown and so sees fewer cases.
 * Offsets are from the start of the frame as it is in memory (a tag in skb metadata is not in it); `l4` and those below it are from
 * the network header, so that they stay right when tags come and go. */
struct packet {
	union key key;
	u64 operand[2];	  /* an address of 16 bytes, collected */
	u32 cpu;
	u32 number;	  /* place of the port that it came in on, 0 if that is none */
	u32 port_flags;	  /* its */
	u32 length;	  /* of the frame, a tag in metadata not counted */
	u32 bytes;	  /* as it came, a tag in metadata counted */
	u32 network;	  /* offset of what follows the tags */
	u32 l4;
	u32 next_header;  /* offset of the byte that says what layer 4 is */
	u32 nd_sll;	  /* offset of the link-layer address in its option */
	u32 nd_tll;
	u32 cut;	  /* a header ran over the end of the memory at hand: it may be whole in the rest of the packet */
	u32 frame_tags;	  /* tags in the frame */
	u32 metadata_tag; /* 1 if the outermost is in metadata */
	/* What the checksums do not know of yet: differences of unfolded sums, and the xor of SCTP's ports. */
	u32 ipv4_difference;
	u32 l4_difference;
	u32 pseudo_difference; /* addresses and protocol: what layer 4's checksum covers outside layer 4 */
	u32 sctp_change;
	u32 layers; /* as they were parsed */
	u32 found; /* slot + 1 of its megaflow; 0: not looked up yet, or none */
	u32 slot;  /* of the megaflow that is executed */
	u32 first; /* the op to go on with */
	u32 sent;  /* a copy has been sent */
	u32 again; /* what OP_AGAIN said; 0 if it has not been parsed again */
	u32 punted; /* after its meters the slow path goes on */
	u32 drop_slot; /* counts it if the plug-in that runs drops it */
	u32 tun_src; /* as it came */
	u32 tun_dst;
	struct tunnel_key tunnel; /* by which it leaves */
};

/* What a plug-in's action returns. */
#define PLUGIN_PASSES 0
#define PLUGIN_DROPS 1

/* The OpenFlow number of the port at a place. */
static __always_inline u32 number_at(u32 place)
{
	return place == LOCAL_PLACE ? OFPP_LOCAL : place;
}

static __always_inline u32 min_u32(u32 a, u32 b)
{
	return a < b ? a : b;
}

/* Hides from the compiler where a value came from. The verifier wants its bounds as they are written: a loop that may end early is left
 * with its plain `n < MAX`, which the compiler would else merge with the other end into a comparison that kernel 6.1 cannot follow. */
#define opaque(x) asm volatile("" : "+r"(x))

/* After a tail call that has others beside it. The compiler would make them one with a variable index, where the kernel makes a jump of
 * one with a constant index, and of the other an indirect call, at ten times the cost. */
#define call_apart(index) asm volatile("" ::"i"(index))

/* The verifier follows loops by itself; copies of their bodies would only use up stack. */
#define no_unroll _Pragma("clang loop unroll(disable)")
