/* SPDX-License-Identifier: GPL-2.0 */
/* The maps. Each says who writes it and who reads it. Python maps those marked "shared memory" into its address space, and direct
 * tables.
 *
 * MAX_MEGAFLOWS, BUCKETS, CACHE_SETS and CPUS are given by the loader; the first three are powers of two.
 */
#pragma once

/* A direct table is a map of one value, the whole array, whose address the kernel puts in the code: to look up is to compare and to add.
 * Its entries start at a page. appliance/datapath/tables.py makes it, and NAME_FD is its file descriptor. NAME_at(index) is NULL if
 * there is no such entry. */
#define DIRECT_TABLE(type, name, entries)                                                                   \
	static __always_inline type *name##_at(u64 index)                                                   \
	{                                                                                                   \
		opaque(index); /* 64 bits, compared and used in one register */                             \
		if (index >= (entries))                                                                     \
			return NULL;                                                                        \
		type *entry = (type *)bpf_pseudo_fd(2 /* BPF_PSEUDO_MAP_VALUE */, name##_FD) + index;       \
		__builtin_assume(entry != NULL);                                                            \
		return entry;                                                                               \
	}

/* Python writes (eBPF: only megaflow_body.ticket and megaflow.flags' gate), eBPF reads */
DIRECT_TABLE(struct megaflow, megaflows, MAX_MEGAFLOWS)
DIRECT_TABLE(struct megaflow_body, megaflow_bodies, MAX_MEGAFLOWS)
/* eBPF writes, Python reads and clears */
DIRECT_TABLE(struct megaflow_stats, megaflow_stats, MAX_MEGAFLOWS *CPUS)
/* Python writes a way at a time, after the megaflow that it points to; eBPF reads */
DIRECT_TABLE(struct bucket, buckets, BUCKETS)
/* Python writes; eBPF reads */
DIRECT_TABLE(struct subtable, subtables, MAX_SUBTABLES)
/* Python writes; eBPF reads. See settings.subtables */
DIRECT_TABLE(struct subtable_order, subtable_orders, 2)
/* eBPF's own: the packet that this CPU handles (programs of both hooks run to their end before the next starts); the last entry is
 * for a packet of the slow path, whose programs do not keep others off the CPU */
BPF_TABLE("array", u32, struct packet, scratch, CPUS + 1);
/* eBPF's own */
DIRECT_TABLE(struct cache_set, cache, CACHE_SETS *CPUS)
/* eBPF's own, but for the slot. Index: CPU */
DIRECT_TABLE(struct repeated, repeated, CPUS)
/* Python writes; eBPF reads. Index: place of the port */
DIRECT_TABLE(struct port, ports, PORT_PLACES)
/* Python writes; eBPF reads. Interface index → port; the direct table for small indices, the hash for others */
DIRECT_TABLE(struct ingress, small_ifindex, SMALL_IFINDEX)
BPF_TABLE("hash", u32, struct ingress, large_ifindex, PORT_PLACES);
/* Python writes by system call; eBPF reads */
BPF_TABLE("array", u32, struct choice, choices, MAX_CHOICES);
/* shared memory; see struct meter */
BPF_F_TABLE("array", u32, struct meter, meters, MAX_METERS, BPF_F_MMAPABLE);
/* Python writes by system call; eBPF reads. The ports that a flood goes to, settings.flood_ports of them */
BPF_TABLE("array", u32, u32, flood_list, MAX_FLOOD_PORTS);
/* shared memory; Python writes, eBPF reads */
BPF_F_TABLE("array", u32, struct settings, settings, 1, BPF_F_MMAPABLE);
/* Python writes by system call; eBPF reads. Index: place of the port */
BPF_TABLE("array", u32, struct tunnel, tunnels, PORT_PLACES);
/* Python writes by system call; eBPF reads. How a packet came by a tunnel device → place of the port */
BPF_TABLE("hash", struct tunnel_end, u32, tunnel_ends, PORT_PLACES);
/* shared memory; see struct injection */
BPF_F_TABLE("array", u32, struct injection, injection, 1, BPF_F_MMAPABLE);
/* Python writes once; eBPF reads. Index: k */
BPF_TABLE("array", u32, struct crc_shift, crc_shifts, CRC_SHIFTS);
/* Python writes by system call; XDP redirects through it. Index: place of the port */
BPF_DEVMAP(xdp_ports, PORT_PLACES);
/* Python writes once. Programs that others end with, apart so that the verifier goes through each once; behind them plug-ins' */
BPF_PROG_ARRAY(tc_programs, PLUGIN_PROGRAM(PLUGIN_KINDS, 0));
BPF_PROG_ARRAY(xdp_programs, PROGRAMS);
/* In the place of xdp_programs and xdp_ports, for generic XDP */
BPF_PROG_ARRAY(generic_programs, PROGRAMS);
BPF_DEVMAP(generic_ports, PORT_PLACES);
/* eBPF writes, Python reads */
DIRECT_TABLE(struct port_counters, port_counters, PORT_PLACES * CPUS)
/* shared memory; eBPF writes, Python reads */
BPF_F_TABLE("array", u32, u64, drops, DROP_REASONS *CPUS, BPF_F_MMAPABLE);
/* shared memory; see struct upcall_share */
BPF_F_TABLE("array", u32, struct upcall_share, upcall_shares, PORT_PLACES, BPF_F_MMAPABLE);
/* shared memory; see struct line */
BPF_F_TABLE("array", u32, struct line, lines, LINES, BPF_F_MMAPABLE);
/* eBPF writes, Python reads: packets for the slow path, in the order in which they came */
BPF_RINGBUF_OUTPUT(upcalls, UPCALL_PAGES);
/* ofswitch_clock writes, Python reads */
BPF_TABLE("array", u32, u64, ticks, 1);
#ifdef TEST_RUN
/* For BPF_PROG_TEST_RUN: Python sets `stop` to n; the program ends at its n-th output, and says here where that would have gone. */
struct test_run {
	struct flow_key key;
	u32 stop;
	u32 outputs;
	u32 op;
	u32 port;
	u32 network_tag; /* wanted: the outermost tag goes to metadata first, as the kernel does it */
	u32 tunneled; /* wanted: the packet came by this tunnel, on this device */
	u32 tunnel_id;
	u32 tun_src;
	u32 tun_dst;
	/* The tunnel by which it left at the last output, in the same order, and the options; all 0 if it left by none. */
	u32 left[3];
	u8 tos;
	u8 ttl;
	u16 nowhere;
};
BPF_TABLE("array", u32, struct test_run, test_run, 1);
#endif
