/* SPDX-License-Identifier: GPL-2.0 */
/* What the fast path is measured with and against: a source of frames, a sink that counts, and hand-written programs that do one job
 * each, as little as it takes. tests/bench/kernel.py compiles this with BCC; CPUS is given by it.
 */
#define __always_inline inline __attribute__((always_inline))

#define FRAME_BYTES 64
#define ETH_HEADER_BYTES 14
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_VLAN 0x8100
#define PROTO_UDP 17
#define MAX_DELAY 4000
#define SINKS 2
#define TC_ACT_OK 0
#define TC_ACT_SHOT 2

/* tests/bench/frames.py mirrors these. */
#define FIRST_ADDRESS 0x0a000000 /* 10.0.0.0: a flow's source address is this + its number */
#define FIRST_PORT 1024
#define PORT_MASK 0x7fff /* a flow's source port is FIRST_PORT + the low bits of its number */
#define DESTINATION 0x0a800001
#define DESTINATION_PORT 4791
#define NEW_ADDRESS 0xc6336401
#define NEW_PORT 40000
#define NEW_VID 100

struct headers {
	u8 dst[6];
	u8 src[6];
	__be16 type;
	u8 version_ihl;
	u8 tos;
	__be16 length;
	__be16 id;
	__be16 fragment;
	u8 ttl;
	u8 proto;
	u16 ip_checksum;
	__be32 saddr;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
	__be16 udp_length;
	u16 udp_checksum;
} __attribute__((packed));

struct tuple {
	__be32 saddr;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
	u8 proto;
	u8 pad[3];
};

/* Python writes `flows`, `out` and `delay`, and 0 in what is eBPF's. */
struct source {
	u64 state; /* the next flow is drawn from it */
	u32 flows;
	u32 out;   /* place in `devices` */
	u32 delay; /* turns of an empty loop before each live frame, each somewhat below a nanosecond */
	u32 pad;
	u64 sent;  /* live frames */
	u64 first; /* when the first was made, and a recent one, in ns: a call also takes some 25 ms to set up and to take down */
	u64 last;
};

BPF_TABLE("array", u32, struct source, source, 1);
/* Python writes. Tuple → place in `devices` (XDP) and interface (TC) */
struct place {
	u32 device;
	u32 ifindex;
};
BPF_TABLE("hash", struct tuple, struct place, tuples, 131072);
/* Python writes. The first DEVICES / 2 are for the source, the others for forwarding programs */
BPF_DEVMAP(devices, 64);
/* Python writes. The interfaces that tc_flood sends to, and what minimal programs send to, by the interface they run on */
BPF_TABLE("array", u32, u32, flood_to, 4);
BPF_TABLE("array", u32, struct place, minimal, 1024);
/* Python writes: the program that the wrapper goes on with */
BPF_PROG_ARRAY(xdp_measured, 1);
BPF_PROG_ARRAY(tc_measured, 1);
/* shared memory; eBPF writes, Python reads: frames that arrived, one cache line a CPU, for each sink */
struct arrived {
	u64 frames;
	u64 last; /* when a recent one came, in ns */
	u64 pad[6];
};
BPF_F_TABLE("array", u32, struct arrived, sunk, SINKS *CPUS, BPF_F_MMAPABLE);

/* ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────── */
static __always_inline u32 next_flow(struct source *s)
{
	u64 x = s->state;
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	s->state = x;
	return (x >> 32) * s->flows >> 32;
}

/* Everything that a program under measurement may have changed. The checksums are not those of the frame: nobody looks at them. */
static __always_inline void write_headers(struct headers *h, u32 flow)
{
	u16 *mac = (u16 *)h;
	mac[0] = bpf_htons(0x0200);
	mac[1] = 0;
	mac[2] = bpf_htons(2);
	mac[3] = bpf_htons(0x0200);
	mac[4] = 0;
	mac[5] = bpf_htons(1);
	h->type = bpf_htons(ETHERTYPE_IPV4);
	h->ip_checksum = 0x1234;
	h->saddr = bpf_htonl(FIRST_ADDRESS + flow);
	h->sport = bpf_htons(FIRST_PORT + (flow & PORT_MASK));
	h->udp_checksum = 0x5678;
}

/* ── the wrapper: test run repeats one frame, so this makes it another one each time, and takes back what the last run did to it ── */
int xdp_wrapper(struct xdp_md *xdp)
{
	u32 zero = 0;
	struct source *s = source.lookup(&zero);
	long tag = (long)xdp->data_end - (long)xdp->data - FRAME_BYTES;
	if (!s || (tag && bpf_xdp_adjust_head(xdp, tag) < 0))
		return XDP_ABORTED;
	void *data = (void *)(long)xdp->data, *end = (void *)(long)xdp->data_end;
	if (data + sizeof(struct headers) > end)
		return XDP_ABORTED;
	write_headers(data, next_flow(s));
	xdp_measured.call(xdp, 0);
	return XDP_ABORTED;
}

int tc_wrapper(struct __sk_buff *skb)
{
	u32 zero = 0;
	struct source *s = source.lookup(&zero);
	if (!s || (skb->vlan_present && bpf_skb_vlan_pop(skb) < 0))
		return -1;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	if (data + sizeof(struct headers) > end)
		return -1;
	write_headers(data, next_flow(s));
	tc_measured.call(skb, 0);
	return -1;
}

/* ── the source of live frames, and the sink ──────────────────────────────────────────────────────────────────────────────────── */
int xdp_source(struct xdp_md *xdp)
{
	void *data = (void *)(long)xdp->data, *end = (void *)(long)xdp->data_end;
	u32 zero = 0;
	struct source *s = source.lookup(&zero);
	if (!s || data + sizeof(struct headers) > end)
		return XDP_ABORTED;
	write_headers(data, next_flow(s));
	u32 delay = s->delay;
#pragma clang loop unroll(disable)
	for (u32 turn = 0; turn < MAX_DELAY; turn++) {
		if (turn >= delay)
			break;
		asm volatile("" : "+r"(turn)); /* or the compiler would take the loop away */
	}
	if (!(s->sent++ & 63)) {
		s->last = bpf_ktime_get_ns();
		if (!s->first)
			s->first = s->last;
	}
	return devices.redirect_map(s->out, 0);
}

static __always_inline void count_arrived(u32 sink)
{
	u32 place = bpf_get_smp_processor_id() + sink * CPUS;
	struct arrived *arrived = sunk.lookup(&place);
	if (arrived && !(arrived->frames++ & 63))
		arrived->last = bpf_ktime_get_ns();
}

int xdp_sink(struct xdp_md *xdp)
{
	count_arrived(0);
	return XDP_DROP;
}

/* For where it matters when each frame comes. */
int xdp_timed_sink(struct xdp_md *xdp)
{
	u32 place = bpf_get_smp_processor_id();
	struct arrived *arrived = sunk.lookup(&place);
	if (arrived) {
		*(volatile u64 *)&arrived->last = bpf_ktime_get_ns();
		*(volatile u64 *)&arrived->frames += 1;
	}
	return XDP_DROP;
}

/* For where it matters which of two sinks a frame comes to. */
int xdp_other_sink(struct xdp_md *xdp)
{
	count_arrived(1);
	return XDP_DROP;
}

int tc_sink(struct __sk_buff *skb)
{
	count_arrived(0);
	return TC_ACT_SHOT;
}

/* ── programs that do nothing: what the harness costs ─────────────────────────────────────────────────────────────────────────── */
int xdp_nothing(struct xdp_md *xdp)
{
	return XDP_DROP;
}

int tc_nothing(struct __sk_buff *skb)
{
	return TC_ACT_SHOT;
}

/* ── without a look at the packet ─────────────────────────────────────────────────────────────────────────────────────────────── */
int xdp_minimal(struct xdp_md *xdp)
{
	u32 from = xdp->ingress_ifindex;
	struct place *place = minimal.lookup(&from);
	return place ? devices.redirect_map(place->device, 0) : XDP_DROP;
}

int tc_minimal(struct __sk_buff *skb)
{
	u32 from = skb->ifindex;
	struct place *place = minimal.lookup(&from);
	return place ? bpf_redirect(place->ifindex, 0) : TC_ACT_SHOT;
}

int tc_minimal_peer(struct __sk_buff *skb)
{
	u32 from = skb->ifindex;
	struct place *place = minimal.lookup(&from);
	if (!place)
		return TC_ACT_SHOT;
	bpf_skb_change_type(skb, 0); /* PACKET_HOST */
	return bpf_redirect_peer(place->ifindex, 0);
}

/* ── with one look-up of the 5-tuple ──────────────────────────────────────────────────────────────────────────────────────────── */
static __always_inline struct headers *udp_headers(void *data, void *end)
{
	struct headers *h = data;
	if (data + sizeof(*h) > end || h->type != bpf_htons(ETHERTYPE_IPV4) || h->version_ihl != 0x45 || h->proto != PROTO_UDP)
		return NULL;
	return h;
}

#define TUPLE(h) {.saddr = (h)->saddr, .daddr = (h)->daddr, .sport = (h)->sport, .dport = (h)->dport, .proto = (h)->proto}

int xdp_lookup(struct xdp_md *xdp)
{
	struct headers *h = udp_headers((void *)(long)xdp->data, (void *)(long)xdp->data_end);
	if (!h)
		return XDP_PASS;
	struct tuple tuple = TUPLE(h);
	struct place *place = tuples.lookup(&tuple);
	return place ? devices.redirect_map(place->device, 0) : XDP_PASS;
}

int xdp_drop(struct xdp_md *xdp)
{
	struct headers *h = udp_headers((void *)(long)xdp->data, (void *)(long)xdp->data_end);
	if (!h)
		return XDP_PASS;
	struct tuple tuple = TUPLE(h);
	return tuples.lookup(&tuple) ? XDP_DROP : XDP_PASS;
}

int xdp_vlan(struct xdp_md *xdp)
{
	struct headers *h = udp_headers((void *)(long)xdp->data, (void *)(long)xdp->data_end);
	if (!h)
		return XDP_PASS;
	struct tuple tuple = TUPLE(h);
	struct place *place = tuples.lookup(&tuple);
	if (!place)
		return XDP_PASS;
	if (bpf_xdp_adjust_head(xdp, -4) < 0)
		return XDP_DROP;
	u32 *data = (void *)(long)xdp->data;
	if ((void *)(data + 4) > (void *)(long)xdp->data_end)
		return XDP_DROP;
	data[0] = data[1];
	data[1] = data[2];
	data[2] = data[3];
	data[3] = bpf_htonl(ETHERTYPE_VLAN << 16 | NEW_VID);
	return devices.redirect_map(place->device, 0);
}

static __always_inline u16 folded(u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* RFC 1624. */
static __always_inline u16 changed(u16 checksum, u64 difference)
{
	return ~folded((u16)~checksum + difference);
}

int xdp_nat(struct xdp_md *xdp)
{
	struct headers *h = udp_headers((void *)(long)xdp->data, (void *)(long)xdp->data_end);
	if (!h)
		return XDP_PASS;
	struct tuple tuple = TUPLE(h);
	struct place *place = tuples.lookup(&tuple);
	if (!place)
		return XDP_PASS;
	u64 address = (u64)(u32)~tuple.saddr + bpf_htonl(NEW_ADDRESS), port = (u64)(u16)~tuple.sport + bpf_htons(NEW_PORT);
	h->ip_checksum = changed(h->ip_checksum, address);
	if (h->udp_checksum) {
		u16 sum = changed(h->udp_checksum, address + port);
		h->udp_checksum = sum ? sum : 0xffff;
	}
	h->saddr = bpf_htonl(NEW_ADDRESS);
	h->sport = bpf_htons(NEW_PORT);
	h->src[0] = 2;
	h->src[5] = 0x99;
	return devices.redirect_map(place->device, 0);
}

int tc_lookup(struct __sk_buff *skb)
{
	struct headers *h = udp_headers((void *)(long)skb->data, (void *)(long)skb->data_end);
	if (!h)
		return TC_ACT_OK;
	struct tuple tuple = TUPLE(h);
	struct place *place = tuples.lookup(&tuple);
	return place ? bpf_redirect(place->ifindex, 0) : TC_ACT_OK;
}

int tc_drop(struct __sk_buff *skb)
{
	struct headers *h = udp_headers((void *)(long)skb->data, (void *)(long)skb->data_end);
	if (!h)
		return TC_ACT_OK;
	struct tuple tuple = TUPLE(h);
	return tuples.lookup(&tuple) ? TC_ACT_SHOT : TC_ACT_OK;
}

int tc_vlan(struct __sk_buff *skb)
{
	struct headers *h = udp_headers((void *)(long)skb->data, (void *)(long)skb->data_end);
	if (!h)
		return TC_ACT_OK;
	struct tuple tuple = TUPLE(h);
	struct place *place = tuples.lookup(&tuple);
	if (!place)
		return TC_ACT_OK;
	if (bpf_skb_vlan_push(skb, bpf_htons(ETHERTYPE_VLAN), NEW_VID) < 0)
		return TC_ACT_SHOT;
	return bpf_redirect(place->ifindex, 0);
}

/* By the kernel's helpers, which know partial checksums, as whoever rewrites packets of local stacks must. */
int tc_nat(struct __sk_buff *skb)
{
	struct headers *h = udp_headers((void *)(long)skb->data, (void *)(long)skb->data_end);
	if (!h)
		return TC_ACT_OK;
	struct tuple tuple = TUPLE(h);
	struct place *place = tuples.lookup(&tuple);
	if (!place)
		return TC_ACT_OK;
	u32 address = bpf_htonl(NEW_ADDRESS);
	u16 port = bpf_htons(NEW_PORT);
	u64 udp = __builtin_offsetof(struct headers, udp_checksum), ip = __builtin_offsetof(struct headers, ip_checksum);
	if (bpf_l4_csum_replace(skb, udp, tuple.saddr, address, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | 4) < 0 ||
	    bpf_l4_csum_replace(skb, udp, tuple.sport, port, BPF_F_MARK_MANGLED_0 | 2) < 0 ||
	    bpf_l3_csum_replace(skb, ip, tuple.saddr, address, 4) < 0)
		return TC_ACT_SHOT;
	h = udp_headers((void *)(long)skb->data, (void *)(long)skb->data_end);
	if (!h)
		return TC_ACT_SHOT;
	h->saddr = address;
	h->sport = port;
	h->src[0] = 2;
	h->src[5] = 0x99;
	return bpf_redirect(place->ifindex, 0);
}

int tc_flood(struct __sk_buff *skb)
{
	struct headers *h = udp_headers((void *)(long)skb->data, (void *)(long)skb->data_end);
	if (!h)
		return TC_ACT_OK;
	struct tuple tuple = TUPLE(h);
	if (!tuples.lookup(&tuple))
		return TC_ACT_OK;
#pragma unroll
	for (int n = 0; n < 4; n++) {
		u32 place = n;
		u32 *ifindex = flood_to.lookup(&place);
		if (ifindex)
			bpf_clone_redirect(skb, *ifindex, 0);
	}
	return TC_ACT_SHOT;
}
