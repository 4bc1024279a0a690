/* SPDX-License-Identifier: GPL-2.0 */
/* Meters: token buckets without a lock. appliance/packet/meter.py is the reference.
 *
 * A bucket is one number: the time at which it will be full again. A packet moves it on by what it costs; a packet that would move it
 * further ahead of now than the burst exceeds the band and costs nothing.
 */
#pragma once

#define METER_PASSES 0
#define METER_DROPS -1

/* Whether a packet of this cost fits; if so, the tokens are taken. Another CPU may take some meanwhile: then look again. */
static __always_inline int take_tokens(struct band *band, u64 cost, u64 now)
{
	no_unroll for (int attempt = 0; attempt < 4; attempt++) {
		u64 full_at = *(volatile u64 *)&band->full_at;
		u64 next = (full_at > now ? full_at : now) + cost;
		/* A full bucket lets any packet through, also one that is larger than the burst: the next ones pay for it. */
		if (next > now + band->burst && full_at > now)
			return 0;
		if (__sync_val_compare_and_swap(&band->full_at, full_at, next) == full_at)
			return 1;
	}
	return 1; /* contended beyond reason: rather a packet too many */
}

/* Raises the drop precedence: DSCP classes AF1x to AF4x are levels, others have none. OpenFlow 1.3.5, section 7.3.4.5. */
static __always_inline u32 remarked_tos(u32 tos, u32 levels)
{
	u32 dscp = tos >> 2, class = dscp >> 3, precedence = dscp >> 1 & 3;

	if (dscp & 1 || class < 1 || class > 4 || !precedence)
		return tos;
	precedence = min_u32(precedence + levels, 3);
	return (class << 3 | precedence << 1) << 2 | (tos & 3);
}

/* Takes the tokens and counts: METER_PASSES, METER_DROPS, or by how many levels the drop precedence goes up. Of the bands that are
 * exceeded, the one with the highest rate has its way. */
static __always_inline int meter_packets(struct meter *meter, u32 packets, u32 bytes)
{
	u64 amount = meter->in_packets ? packets : bytes, now = bpf_ktime_get_ns();
	u32 exceeded = 0;

	__sync_fetch_and_add(&meter->packets, packets);
	__sync_fetch_and_add(&meter->bytes, bytes);
	no_unroll for (u32 n = 0; n < MAX_BANDS; n++) {
		opaque(n);
		if (n >= meter->bands)
			break;
		struct band *band = &meter->band[n];
		if (!take_tokens(band, amount * band->cost >> 16, now))
			exceeded = n + 1;
	}
	if (!exceeded)
		return METER_PASSES;
	struct band *band = &meter->band[(exceeded - 1) & (MAX_BANDS - 1)];
	__sync_fetch_and_add(&band->packets, packets);
	__sync_fetch_and_add(&band->bytes, bytes);
	return band->remark ? band->remark : METER_DROPS;
}

static __always_inline int run_meter(struct packet *p, struct hook hook, u32 index)
{
	struct meter *meter = meters.lookup(&index);

	if (!meter)
		return METER_PASSES;
	/* The packet as it is now: of another length than it came, where it has been parsed again. */
	u32 bytes = p->length + p->metadata_tag * VLAN_TAG_BYTES;
	int levels = meter_packets(meter, hook.skb->gso_segs > 1 ? hook.skb->gso_segs : 1, bytes);
	if (levels == METER_PASSES || levels == METER_DROPS)
		return levels;
	u32 tos = remarked_tos(p->key.f.ip_tos, levels);
	if (tos != p->key.f.ip_tos && set_tos(p, hook, 0xfc, tos) < 0)
		return METER_DROPS;
	return METER_PASSES;
}
