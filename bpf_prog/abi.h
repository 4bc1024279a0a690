/* SPDX-License-Identifier: GPL-2.0 */
/* What the fast path and the agent share: every structure, number and name that crosses between C and Python.
 *
 * This file is canonical. appliance/datapath/layout.py mirrors it, and tests/unit/test_abi.py compiles it to compare sizes,
 * offsets and numbers. Padding is explicit; all sizes are multiples of 8. It includes nothing: whoever includes it first defines
 * u8, u16, u32 and u64.
 */
#pragma once

#define KEY_WORDS 16
#define COMMON_WORDS 6 /* of these: see COMMON_TERMS in lookup.h */
#define MAX_VLAN_TAGS 2
#define MAX_IPV6_EXTENSION_HEADERS 8
#define MAX_ND_OPTIONS 4
#define MAX_HEADER_BYTES 512
#define MAX_PORT_NUMBER 4095
#define OFPP_LOCAL 0xfffffffe
#define LOCAL_PLACE 4096 /* OFPP_LOCAL's in the arrays of ports; any other port's place is its number. Keys have numbers, all else places */
#define PORT_PLACES 4097
#define MAX_FLOOD_PORTS 256
#define MAX_SUBTABLES 128
#define MAX_OPS 32
#define EDIT_OPS 27 /* from here on struct edit takes the place of ops, if MEGAFLOW_EDITS */
#define RUN_OPS 8 /* a program executes this many and then calls the next: a short loop is verified fast */
#define BUCKET_WAYS 8
#define CACHE_WAYS 2
#define NO_SUBTABLE 0xffffffff
#define MAX_WAYS 32
#define MAX_CHOICES 4096
#define MAX_METERS 1024
#define MAX_BANDS 8
#define MAX_WAITING 256 /* packets of a gated megaflow */
#define LINES 4096
#define MAX_METER_OPS 4 /* of one megaflow */
#define MAX_PLUGINS 32	/* ids are below */
#define PLUGIN_ARGUMENT_BYTES 12
#define MAX_PLUGIN_COUNTERS 16
#define NO_SLOT 0xffffffff
#define FIRST_AGAIN 0x10000 /* from here to LAST_AGAIN: in the place of in_port, in keys of packets that are parsed again (OP_AGAIN) */
#define LAST_AGAIN 0x7fffffff
#define MAX_TAGS_OF_COPY 8 /* that a packet may have between OP_SAVE and OP_RESTORE */

/* The flow key: network byte order, laid out as appliance/model/fields.py says. */
struct flow_key {
	u64 metadata; /* always 0 here: the slow path's register */
	u64 tunnel_id;
	u32 tun_src; /* of the tunnel that the packet came by; IPv4 */
	u32 tun_dst;
	u32 in_port;
	u16 vlan_tci;
	u16 inner_vlan_tci;
	u8 eth_dst[6];
	u8 eth_src[6];
	u16 eth_type;
	u16 layers;
	u16 l4_src; /* also ICMP type, ARP opcode */
	u16 l4_dst; /* also ICMP code */
	u8 ip_ttl; /* beside the protocol, as in IPv4's header */
	u8 ip_proto;
	u8 ip_frag;
	u8 ip_tos;
	union {
		u32 ipv6_flabel;
		u32 pbb; /* the I-SID: nothing behind it is parsed */
	};
	u8 ip_src[16]; /* an IPv4 or ARP address is in the last four bytes */
	u8 ip_dst[16]; /* in the first four: the two are one word */
	u16 tcp_flags;
	u16 ipv6_exthdr;
	union {
		u8 nd_target[16];
		u32 mpls; /* the outermost label stack entry: likewise */
	};
	u8 nd_sll[6]; /* also ARP's sender hardware address */
	u8 nd_tll[6]; /* also ARP's target hardware address */
	u32 plugin_bits; /* what plug-ins' matches say of the packet */
};

enum layer {
	LAYER_MPLS = 1 << 0,
	LAYER_PBB = 1 << 1,
	LAYER_ARP = 1 << 2,
	LAYER_IPV4 = 1 << 3,
	LAYER_IPV6 = 1 << 4,
	LAYER_TCP = 1 << 5,
	LAYER_UDP = 1 << 6,
	LAYER_SCTP = 1 << 7,
	LAYER_ICMP = 1 << 8,
	LAYER_ND = 1 << 9,
	LAYER_ND_SLL = 1 << 10,
	LAYER_ND_TLL = 1 << 11,
};

enum fragment {
	FRAGMENT_NONE = 0,
	FRAGMENT_FIRST = 1,
	FRAGMENT_LATER = 2,
};

/* One step of a megaflow's actions. An address of 16 bytes comes in three: OP_OPERAND_0, OP_OPERAND_1, and the rest in the op itself. */
struct op {
	u8 code;
	u8 arg8;
	u16 arg16;
	u32 arg32;
};

enum op_code {
	OP_END = 0,
	OP_FORWARD = 1,       /* arg32 port: send the packet there; the last op */
	OP_OUTPUT = 2,	      /* arg32 port: send a copy there and go on */
	OP_FLOOD = 3,	      /* send a copy to every flood port but the packet's own, and go on; TC only */
	OP_PUSH_TAG = 4,      /* arg16 TPID, arg32 TCI */
	OP_POP_TAG = 5,
	OP_SET_VLAN = 6,      /* arg16 TCI mask, arg32 TCI value */
	OP_SET_ETH_DST = 7,   /* arg16 and arg32 together: the address */
	OP_SET_ETH_SRC = 8,
	OP_SET_ETH_TYPE = 9,  /* arg16, network order */
	OP_SET_IPV4_SRC = 10, /* arg32, network order */
	OP_SET_IPV4_DST = 11,
	OP_SET_IPV6_SRC = 12, /* arg32: the last four bytes */
	OP_SET_IPV6_DST = 13,
	OP_SET_IPV6_FLABEL = 14, /* arg32, network order */
	OP_SET_IP_TOS = 15,	 /* arg8 mask, arg16 value */
	OP_SET_IP_TTL = 16,	 /* arg8 */
	OP_DEC_TTL = 17,
	OP_SET_IP_PROTO = 18, /* arg8 */
	OP_SET_L4_SRC = 19,   /* arg16, network order; arg32 the layer that must be there */
	OP_SET_L4_DST = 20,
	OP_SET_ICMP_TYPE = 21, /* arg8; arg32 the IP layer that must be there */
	OP_SET_ICMP_CODE = 22,
	OP_SET_ARP_OP = 23, /* arg16, network order */
	OP_SET_ARP_SPA = 24,
	OP_SET_ARP_TPA = 25,
	OP_SET_ARP_SHA = 26,
	OP_SET_ARP_THA = 27,
	OP_SET_ND_TARGET = 28, /* arg32: the last four bytes */
	OP_SET_ND_SLL = 29,
	OP_SET_ND_TLL = 30,
	OP_OPERAND_0 = 32, /* arg16 and arg32 together: bytes 0 to 5 of an address */
	OP_OPERAND_1 = 33, /* bytes 6 to 11; arg8: byte 12 */
	OP_METER = 34,  /* arg16: index of the meter; arg32: the slot that counts what it drops. Before all others, with MEGAFLOW_METERED */
	OP_CHOOSE = 35, /* arg32: index of the choice; the last op: its way's ops go on */
	OP_SET_TUNNEL_ID = 40, /* arg16 and arg32 together: the lower 48 bits */
	OP_SET_TUN_SRC = 41, /* arg32, network order */
	OP_SET_TUN_DST = 42,
	OP_SET_QUEUE = 36, /* arg32: the traffic class (major << 16 | minor) that outputs from here on go to; TC only */
	OP_PLUGIN = 46, /* arg8: the plug-in, its arguments the operand's first 12 bytes; arg32: the slot that counts what it drops, or NO_SLOT. TC only */
	OP_CONTROLLER = 37, /* send a copy up for the controllers, and go on. The operand: cookie, first half of the metadata, table; arg8: OFPR_*,
			       arg16: max_len, arg32: second half of the metadata. Cookie and metadata in network order. TC only */
	OP_CHECKSUMS = 31, /* enter the changes so far in the checksums: before an output */
	/* From here on: ops for PROGRAM_EXECUTE only. */
	OP_PUSH_MPLS = 48, /* arg16: ethertype, network order */
	OP_POP_MPLS = 49,  /* likewise; what looks at headers behind Ethernet and tags may not follow */
	OP_SET_MPLS = 50,  /* arg8: the lowest bit, arg16: how many bits, arg32: their value, shifted */
	OP_DEC_MPLS_TTL = 51,
	OP_COPY_TTL_OUT = 52,
	OP_COPY_TTL_IN = 53,
	OP_SAVE = 54, /* arg8: whether tags change before OP_RESTORE, which makes the packet what it was. TC only: see clone.h */
	OP_RESTORE = 55, /* arg8: as in OP_SAVE */
	OP_AGAIN = 57, /* arg32: parse the packet again (arg8: unless it is as it was) and look it up as if it had come in on this port, which is
			  none; the last op. TC only */
	OP_NEXT = 56, /* arg32: the slot whose ops go on; the last op of a slot */
};
#define OP_MORE OP_PUSH_MPLS

enum megaflow_flag {
	MEGAFLOW_PUNT = 1 << 0, /* the slow path executes it */
	MEGAFLOW_XDP = 1 << 1,	/* XDP can do all of it: at most one output, at the end */
	MEGAFLOW_METERED = 1 << 4, /* its first ops are OP_METER */
	MEGAFLOW_POPS = 1 << 3,	 /* looks at what a third tag hides, once it has taken one off: the slow path executes it for packets with a third */
	MEGAFLOW_GATED = 1 << 2, /* earlier packets may still be under way in the slow path: see ticket */
	MEGAFLOW_WIDE = 1 << 5,	 /* its key has more than common words: see lookup.h */
	/* These three are not with MEGAFLOW_WIDE. */
	MEGAFLOW_DIRECT = 1 << 6, /* it does nothing but send to xdp_port, or drop */
	/* With one of these, or both, it does nothing to a common packet but what struct edit says, and sends it to xdp_port. */
	MEGAFLOW_EDITS = 1 << 7,  /* fields */
	MEGAFLOW_RETAGS = 1 << 8, /* the outermost tag */
	MEGAFLOW_PUSHES_MPLS = 1 << 9, /* which a segmentation-offload frame with two tags does not survive: as with MEGAFLOW_POPS */
};

/* A megaflow's slot is in two tables, at the same index. This is what most packets need of it, in one cache line, without what lies
 * between: a page of 4096 bytes has 64 of them, so that many megaflows' addresses are in the CPU's buffer of translations.
 *
 * eBPF writes `ticket`, and may clear MEGAFLOW_GATED; Python writes all the rest, before the slot can be found through `buckets`. */
struct megaflow {
	u32 subtable;	 /* NO_SUBTABLE while no megaflow lies here: Python writes this last, and takes it away first */
	u32 flags;
	u32 xdp_port;	 /* the only output port, for MEGAFLOW_XDP; 0 to drop */
	u16 ttl_needed;	 /* how often the actions take one from the outermost TTL, which must be more: of IP, of MPLS << 5, of others << 10 */
	u16 growth;	 /* bytes by which the actions make a packet longer, at most */
	u64 common[COMMON_WORDS]; /* of the key, masked */
};

/* The rest of it: a whole number of cache lines, of which `keep` and `set` of struct edit are one. */
struct megaflow_body {
	u64 id;		 /* the switch's number for it, given back with upcalls */
	u32 served;	 /* packets that Python has sent on since the slot was filled, ... */
	u32 ticket;	 /* ... of these that eBPF put in the queue while the gate was shut (plus one that Python holds) */
	u64 others[KEY_WORDS - COMMON_WORDS]; /* of the key */
	struct op ops[MAX_OPS];
	u64 pad[4]; /* the rest of struct edit */
};

enum retag {
	RETAG_PUSH = 1,
	RETAG_POP = 2,
};

/* Rewrites of a common packet at once: of words 4, 5, 6 and 9 of its key what is kept, and what is put there, after ttl_needed has been
 * taken from the TTL; then a tag. */
struct edit {
	u16 retag; /* enum retag */
	u16 tpid;  /* host order, as is the TCI */
	u16 tci;
	u16 pad;
	u64 keep[4];
	u64 set[4];
};

/* One bucket of a SELECT or FAST FAILOVER group: its ops are in a slot of the megaflow table that no bucket leads to. */
struct way {
	u32 value; /* SELECT: the first hash that it does not take; FAST FAILOVER: the port that it watches, or 0 */
	u32 slot;
};

enum choice_kind {
	CHOICE_SELECT = 0,
	CHOICE_FAILOVER = 1,
};

/* Python writes it before the megaflow that uses it. */
struct choice {
	u32 kind;
	u32 ways;
	struct way way[MAX_WAYS];
};

/* One band of a meter. A rate is kept as the time that one packet or byte stands for, so that no packet needs a division. */
struct band {
	u64 cost;     /* 2^-16 ns a packet or byte */
	u64 burst;    /* ns: how far `full_at` may be ahead */
	u64 full_at;  /* ns, CLOCK_MONOTONIC: when the token bucket will be full again. eBPF writes */
	u64 packets;  /* that it dropped or remarked. eBPF adds */
	u64 bytes;
	u32 remark;   /* 0 to drop, else by how many levels the drop precedence goes up */
	u32 pad;
};

/* A meter, its bands from the lowest rate up. Shared memory: Python writes it whole, then eBPF its counters. */
struct meter {
	u64 packets;
	u64 bytes;
	u32 in_packets;
	u32 bands;
	struct band band[MAX_BANDS];
};

/* What PROGRAM "ofswitch_take" is given, behind an Ethernet header: packets that the slow path meters. */
struct metered {
	u32 meter; /* index */
	u32 packets;
	u32 bytes;
	u32 pad;
};

/* A slot's statistics on one CPU: slot + CPU * MAX_MEGAFLOWS. eBPF adds, Python reads. */
struct megaflow_stats {
	u64 packets;
	u64 bytes;
	u64 last_used; /* ticks of the kernel, see ofswitch_clock; 0 for never */
	u64 tcp_flags; /* all seen: word 11 of the key, which has them as the packet has */
};

/* A mask with its megaflows. Python writes; it is a whole number of cache lines. */
struct subtable {
	u64 common[COMMON_WORDS]; /* these stay when it has no megaflows any more: a packet that was under way then may still read them */
	u64 pad[2];
	u64 others[KEY_WORDS - COMMON_WORDS];
	u64 pad_behind[6];
};

/* Numbers of the subtables, those that find most first. There are two: Python writes the one that is not in use, then says which is. */
struct subtable_order {
	u8 number[MAX_SUBTABLES];
};

/* Where the megaflows of all subtables are found: a set-associative hash table, 0 for an empty way. Python writes. */
struct bucket {
	u64 way[BUCKET_WAYS]; /* tag << 32 | slot + 1 */
};

/* Where packets of one hash found their megaflow lately, on one CPU: index + CPU * CACHE_SETS. eBPF reads and writes. */
struct cache_set {
	u64 way[CACHE_WAYS]; /* tag << 32 | slot + 1, the latest first */
};

/* The common packet that came twice in a row lately, on one CPU, and where its megaflow is. Packets come in bursts, and the rest of a
 * burst is known by the bytes that its key is made of: what is compared is one cache line. eBPF writes, and Python takes the slot away. */
struct repeated {
	u64 word_3;   /* of its key */
	u64 bytes_0;  /* eight of the frame, from here on; also word 4 of the key */
	u64 bytes_8;
	u64 bytes_16; /* of these and the next, what REPEATED_16 and mask_40 leave */
	u64 bytes_26; /* also word 9 */
	u64 bytes_30;
	u64 bytes_40;
	u64 mask_40;  /* which bits belong to the key: TCP's flags, or none */
	u64 word_5;
	u64 word_6;
	u64 word_11;
	u32 slot; /* plus one; 0 for none */
	u32 hint; /* of the last packet that was looked up */
	u64 pad[4];
};

enum port_flag {
	PORT_FORWARD = 1 << 0, /* may be sent to */
	PORT_RECEIVE = 1 << 1, /* may be received from */
	PORT_XDP_TRANSMIT = 1 << 2, /* XDP redirects to it arrive */
	PORT_LIVE = 1 << 3,	    /* a FAST FAILOVER bucket that watches it is taken */
	PORT_TUNNEL = 1 << 4,	    /* `tunnels` says where its packets go */
	PORT_UNFINISHED = 1 << 5,   /* its frames may come to XDP with open checksums, or with a tag beside them */
	PORT_IN_PIECES = 1 << 6,    /* its frames may come to XDP in several pieces, of which there is one at hand */
};

struct port {
	u32 ifindex; /* 0: no such port */
	u32 flags;
	u32 longest; /* bytes of a frame that XDP may send there, or TC to the other end: the kernel drops a longer one */
	u32 pad;
	u64 other_end; /* a veth's in another namespace: the Ethernet destination of the frames that TC puts straight there, as first in a
			* frame, the rest 0; NO_OTHER_END for none */
	u64 pad2; /* none lies on two cache lines */
};

#define NO_OTHER_END -1

/* What comes in on an interface: the port's place, 0 for none, and its flags once more. Of a tunnel device, which has several ports,
 * the flags are PORT_TUNNEL alone, and bit n of `place` says that one of the ports has fixed what the bits of n stand for
 * (TUNNEL_LOCAL, TUNNEL_REMOTE, TUNNEL_KEY). */
struct ingress {
	u16 place;
	u16 flags;
	u32 in_port; /* its number, as keys have it */
};

/* What of a tunnel's end a port has fixed; what it has not, each packet's own fields say. */
enum tunnel_flag {
	TUNNEL_LOCAL = 1 << 0,
	TUNNEL_REMOTE = 1 << 1,
	TUNNEL_KEY = 1 << 2,
	TUNNEL_IPV6 = 1 << 3, /* the addresses are IPv6 */
};

/* Flags of bpf_skb_set_tunnel_key (linux/bpf.h, BPF_F_*). */
enum send_flag {
	SEND_IPV6 = 1 << 0,
	SEND_WITHOUT_CHECKSUM = 1 << 1,
	SEND_WHOLE = 1 << 2, /* not to be fragmented */
	SEND_WITHOUT_KEY = 1 << 4, /* since kernel 6.5 */
};

/* How a tunnel port sends. Python writes. What is fixed is here, and `open` is all ones for what a packet's own field says, which is
 * then 0 here: no branch for eBPF, which the verifier would follow. IPv4 addresses are in the first word, in host order. */
struct tunnel {
	u64 flags; /* enum send_flag */
	u32 remote[4];
	u32 local[4];
	u32 id;
	u32 remote_open;
	u32 local_open;
	u32 id_open;
	u8 tos;
	u8 tos_open;
	u8 ttl; /* also for a packet that has none */
	u8 ttl_open;
	u32 pad;
};

/* What packets of a tunnel device must have come by to be those of a port; 0 for what is not fixed. */
struct tunnel_end {
	u32 remote[4];
	u32 local[4];
	u32 id;
	u32 ifindex;
	u32 fixed; /* enum tunnel_flag; TUNNEL_IPV6 with one of the addresses only */
	u32 pad;
};

/* What a frame of the slow path has to say of its tunnel. Shared memory: Python writes it before the frame is sent, then clears `mark`. */
struct injection {
	u64 tunnel_id; /* in host order, like the addresses */
	u32 tun_src;
	u32 tun_dst;
	u32 mark; /* of the frame's socket; 0 for nothing to send */
	u32 number; /* of the port */
	u32 tos;
	u32 ttl;
};

/* What became of the packets of one port on one CPU: port + CPU * PORT_PLACES. eBPF adds, Python reads. */
struct port_counters {
	u64 rx_bytes;
	u64 tx_packets;
	u64 tx_bytes;
	u64 forwarded_xdp; /* these four together are all packets that came in */
	u64 forwarded_tc;
	u64 dropped;
	u64 punted;
	u64 lost; /* copies for the controllers that found no room in the queue to the slow path */
};

/* Programs that others end with, by index in `tc_programs` and `xdp_programs`. */
enum program {
	PROGRAM_EXECUTE = 0, /* the next RUN_OPS ops */
	PROGRAM_FLOOD = 1,   /* TC only */
	PROGRAM_METER = 2,   /* TC only */
	PROGRAM_HANDLE = 3,  /* what comes after parsing: at TC plug-ins' matches, if there are any */
	PROGRAM_LOOK_UP = 4, /* TC only: what comes after those */
	PROGRAM_DROP = 5,    /* TC only: the end of a packet that a plug-in drops */
	PROGRAM_EDIT = 6,    /* TC only: struct edit, and the end */
	PROGRAM_TUNNEL = 7,  /* TC only: before HANDLE, for what came on a tunnel device */
	PROGRAM_COPY = 8,    /* TC only: OP_CONTROLLER, the one before p->first */
	PROGRAM_AGAIN = 9,   /* TC only: OP_AGAIN */
	PROGRAMS = 10,
};

/* What a plug-in may be called for. Its program for that is in `tc_programs` at PLUGIN_PROGRAM(kind, id). */
enum plugin_kind {
	PLUGIN_ACTION = 0,
	PLUGIN_MATCH = 1,	 /* ends by calling the next one's, the last PROGRAM_LOOK_UP */
	PLUGIN_ACTION_APART = 2, /* as ofswitch_apart calls it: returns its verdict */
	PLUGIN_MATCH_APART = 3,
	PLUGIN_KINDS = 4,
};

#define PLUGIN_PROGRAM(kind, id) (PROGRAMS + (kind) * MAX_PLUGINS + (id))

struct settings {
	u32 subtables;	 /* how many there are, and which subtable_order names them << 16 */
	u32 flood_ports; /* entries of the flood list in use */
};

#define CRC_SHIFTS 16

/* What 2^k zero bytes behind it make of a CRC32c: the xor of one entry for each of its bytes, the lowest first. */
struct crc_shift {
	u32 table[4][256];
};

enum upcall_reason {
	UPCALL_MISS = 0,
	UPCALL_ACTION = 1,
	UPCALL_TTL = 2,
	UPCALL_CATCHING_UP = 3,
	UPCALL_COPY = 4, /* for the controllers: the packet as it is now. It has been counted, and is not dropped if there is no room */
};

enum drop_reason {
	DROP_NO_ACTION = 0,
	DROP_NOT_A_PORT = 1,
	DROP_NO_RECV = 2,
	DROP_OUTPUT_DOWN = 3,
	DROP_UPCALL_FULL = 4,
	DROP_REWRITE_FAILED = 5,
	DROP_REDIRECT_FAILED = 6,
	DROP_RUNT = 7,
	DROP_METER = 8,
	DROP_NO_LIVE_BUCKET = 9,
	DROP_UPCALL_SHARE = 10,
	DROP_PLUGIN = 11,
	DROP_NO_TUNNEL_DESTINATION = 12,
	DROP_REASONS = 13,
};

#define UPCALL_UNIT 2048 /* bytes of the ring buffer that the slow path's queue is counted in */

/* How much of the slow path's queue the packets of one port fill: `taken` less `served` units. eBPF adds to the one, Python, when it
 * takes packets out, to the other. Index: place of the port; 0 for all ports together. */
struct upcall_share {
	u32 taken;
	u32 served;
};

/* How many packets of some flows are in the slow path: `taken` less `served`. eBPF adds to the one before it sends a packet up, Python to
 * the other when it has dealt with it. Index: `line_of` the packet. */
struct line {
	u32 taken;
	u32 served;
};

/* One packet on its way to the slow path, in the ring buffer: this, then `length` bytes of frame. */
struct upcall {
	struct flow_key key;
	u64 megaflow; /* 0 on a miss */
	u32 in_port;
	u32 reason;
	u32 length;
	u32 gso_size;
	u16 vlan_present; /* the outermost tag is not in the frame but here */
	u16 vlan_tpid;	  /* host order */
	u16 vlan_tci;	  /* host order, with DEI */
	u16 line; /* the packet's; of UPCALL_COPY the packet-in's max_len. What follows, up to `bytes`, is for the packet-in, too */
	u64 cookie; /* network order. Of others than UPCALL_COPY: tun_src and tun_dst as the packet came in, where it has been parsed again */
	u16 table;
	u16 packet_in_reason;
	u32 bytes; /* of the packet as it came in: for all, where it has been parsed again since */
};
