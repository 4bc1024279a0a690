/* SPDX-License-Identifier: GPL-2.0 */
/* Sending a packet to the slow path, whole. */
#pragma once

#define UPCALL_SMALL 256
#define UPCALL_MEDIUM 2048
#define UPCALL_LARGE (65536 + 256) /* the longest segmentation-offload frame, with its headers */

static __always_inline void fill_upcall(struct upcall *u, struct packet *p, struct hook hook, u32 reason, u64 megaflow)
{
	u->key = p->key.f;
	u->megaflow = megaflow;
	u->in_port = bpf_ntohl(p->key.f.in_port);
	u->reason = reason;
	u->length = p->length;
	u->gso_size = hook.skb->gso_size;
	u->vlan_present = p->metadata_tag;
	u->vlan_tpid = bpf_ntohs((u16)hook.skb->vlan_proto);
	u->vlan_tci = hook.skb->vlan_tci;
	u->pad = 0;
}

/* False if there is no room. A ring buffer's record must have a size that the verifier knows: there are three of them. */
static __always_inline int punt(struct packet *p, struct hook hook, u32 reason, u64 megaflow)
{
	struct upcall *u;
	u64 length = p->length; /* 64 bits, so that it is compared and used in one register, whose range the verifier knows */

	opaque(length);
	if (length > UPCALL_LARGE)
		return 0;
	if (length <= UPCALL_SMALL)
		u = upcalls.ringbuf_reserve(sizeof(struct upcall) + UPCALL_SMALL);
	else if (length <= UPCALL_MEDIUM)
		u = upcalls.ringbuf_reserve(sizeof(struct upcall) + UPCALL_MEDIUM);
	else
		u = upcalls.ringbuf_reserve(sizeof(struct upcall) + UPCALL_LARGE);
	if (!u)
		return 0;
	fill_upcall(u, p, hook, reason, megaflow);
	opaque(length); /* or the compiler makes one comparison of this bound and the others, and kernel 6.1 does not see the lower one */
	if (length < ETH_HEADER_BYTES || bpf_skb_load_bytes(hook.skb, 0, u + 1, length) < 0) {
		upcalls.ringbuf_discard(u, 0);
		return 0;
	}
	upcalls.ringbuf_submit(u, 0);
	return 1;
}
