/* SPDX-License-Identifier: GPL-2.0 */
/* Flow key → megaflow: the cache, then one probe a subtable.
 *
 * Hashes only say where to look: a megaflow is used after the whole masked key was compared with its own, so a collision costs speed,
 * never rightness.
 *
 * A *common* packet has nothing but 0 outside six words of its key (IPv4 without a tunnel and most that is not IP). What is 0 adds
 * nothing to a hash, and is equal to what it must be if the megaflow's key has 0 there too (no MEGAFLOW_WIDE): only the six are loaded.
 */
#pragma once

#define HASH_FINAL 0x9e3779b97f4a7c15ULL

/* Whether a key has more than common words. */
static __always_inline int is_wide(const u64 *w)
{
	return (w[0] | w[1] | w[2] | w[7] | w[8] | w[10] | w[12] | w[13] | w[14] | w[15]) != 0;
}

/* Adds word n, folded so that its high bits count too, times a random odd constant. appliance/datapath/index.py does the same. */
static __always_inline u64 hash_word(u64 word, u64 constant)
{
	return (word ^ word >> 32) * constant;
}

/* For each word of a key: its number, and where a megaflow has it, and a subtable its mask. */
#define COMMON_TERMS(term, operator)                                                                                                \
	term(3, common[0]) operator term(4, common[1]) operator term(5, common[2]) operator term(6, common[3]) operator             \
	term(9, common[4]) operator term(11, common[5])
#define OTHER_TERMS(term, operator)                                                                                                 \
	term(0, others[0]) operator term(1, others[1]) operator term(2, others[2]) operator term(7, others[3]) operator             \
	term(8, others[4]) operator term(10, others[5]) operator term(12, others[6]) operator term(13, others[7]) operator          \
	term(14, others[8]) operator term(15, others[9])

static __always_inline u64 hash_masked(const u64 *key, const struct subtable *subtable, int wide)
{
#define TERM(n, place) hash_word(key[n] & subtable->place, HASH_##n)
	u64 hash = COMMON_TERMS(TERM, +);
	if (wide)
		hash += OTHER_TERMS(TERM, +);
#undef TERM
	/* The sum is linear in the words: without this, flows that count up may crowd in few buckets. */
	hash = (hash ^ hash >> 32) * HASH_FINAL;
	return hash ^ hash >> 32;
}

/* 0 if the megaflow, which is in this slot and of this subtable, is that of the key. */
static __always_inline u64 differ(const u64 *key, const struct subtable *subtable, const struct megaflow *megaflow, u64 slot, int wide)
{
#define DIFF(n, place) ((key[n] & subtable->place) ^ megaflow->place)
#define OTHER_DIFF(n, place) ((key[n] & subtable->place) ^ body->place)
	u64 diff = COMMON_TERMS(DIFF, |);
	if (wide) {
		const struct megaflow_body *body = megaflow_bodies_at(slot);
		if (!body)
			return 1;
		diff |= OTHER_TERMS(OTHER_DIFF, |);
	} else {
		diff |= megaflow->flags & MEGAFLOW_WIDE;
	}
#undef OTHER_DIFF
#undef DIFF
	return diff;
}

/* Where the cache may have it: by the words in which flows differ most, two at a time where they hardly differ together. Its best bits
 * are the highest. */
static __always_inline u64 hash_hint(const u64 *w)
{
	return (w[3] + w[5]) * HASH_5 + (w[4] + w[6]) * HASH_6 + w[9] * HASH_9 + (w[8] + w[10]) * HASH_8;
}

static __always_inline struct cache_set *cache_set(u64 hint, u32 cpu)
{
	return cache_at((hint >> 40 & (CACHE_SETS - 1)) + (u64)cpu * CACHE_SETS);
}

/* The slot that the cache has for it, if any, or NO_SLOT. It may have a new use since, and the last way's tag is not even looked at:
 * who takes it compares as if it were found anew. */
static __always_inline u32 cached_slot(const struct cache_set *set, u64 hint)
{
	u64 found = set->way[CACHE_WAYS - 1];
#pragma unroll
	for (int way = CACHE_WAYS - 2; way >= 0; way--) {
		u64 value = set->way[way];
		if (!((value ^ hint) >> 32))
			found = value;
	}
	return (u32)found - 1;
}

/* The value, or 0 if it has another tag; without a branch, because the verifier would follow each way's both. */
static __always_inline u64 if_tagged(u64 value, u64 tag)
{
	u64 difference = value >> 32 ^ tag;

	opaque(difference);
	return value & (s64)(difference - 1) >> 63;
}

/* Puts slot + 1 of the megaflow for the packet's key in p->found, and leaves it 0 if there is none. `wide` is a constant: there are two
 * loops. Each turn has as few branches as can be: the verifier goes through all turns, and for each branch through the rest again. */
static __always_inline void probe(struct packet *p, const struct subtable_order *order, u64 count, int wide)
{
	const u64 *key = p->key.w;

	no_unroll for (u64 n = 0; n < MAX_SUBTABLES; n++) {
		opaque(n);
		if (n >= count)
			break;
		u64 number = order->number[n & (MAX_SUBTABLES - 1)];
		struct subtable *subtable = subtables_at(number);
		if (!subtable)
			break;
		u64 hash = hash_masked(key, subtable, wide), tag = hash >> 32 | 1, found = 0;
		struct bucket *bucket = buckets_at((hash + number) & (BUCKETS - 1));
		if (!bucket)
			break;
#pragma unroll
		for (int way = 0; way < BUCKET_WAYS; way++)
			found |= if_tagged(bucket->way[way], tag);
		if (!found)
			continue;
		u64 slot = (found - 1) & (MAX_MEGAFLOWS - 1);
		struct megaflow *megaflow = megaflows_at(slot);
		if (!megaflow)
			break;
		if (differ(key, subtable, megaflow, slot, wide) | (megaflow->subtable ^ number))
			continue;
		p->found = found;
		break;
	}
}

/* Whether the megaflow in this slot, if there is one, is that of the key. */
static __always_inline int fits(u32 slot, const u64 *key, int wide)
{
	struct megaflow *megaflow = megaflows_at(slot);
	if (!megaflow)
		return 0;
	struct subtable *subtable = subtables_at(*(volatile u32 *)&megaflow->subtable);
	return subtable && !differ(key, subtable, megaflow, slot, wide);
}

/* Puts slot + 1 of the megaflow for the packet's key in p->found, 0 on a miss. Writes the cache. */
static __always_inline void lookup(struct packet *p)
{
	const u64 *key = p->key.w;
	u64 hint = hash_hint(key);
	u32 zero = 0;
	int wide = is_wide(key);
	struct cache_set *set = cache_set(hint, p->cpu);
	struct settings *s = settings.lookup(&zero);

	if (!set || !s)
		return;
	p->found = cached_slot(set, hint) + 1;
	/* It is read back, here and below, so that the verifier takes it as unknown whichever way it came. */
	if (fits(*(volatile u32 *)&p->found - 1, key, wide))
		return;
	p->found = 0;
	u32 subtables = *(volatile u32 *)&s->subtables;
	const struct subtable_order *order = subtable_orders_at(subtables >> 16 & 1);
	if (!order)
		return;
	if (wide)
		probe(p, order, subtables & 0xffff, 1);
	else
		probe(p, order, subtables & 0xffff, 0);
	u32 found = *(volatile u32 *)&p->found;
	if (!found)
		return;
#pragma unroll
	for (int way = CACHE_WAYS - 1; way > 0; way--)
		set->way[way] = set->way[way - 1];
	set->way[0] = (hint >> 32) << 32 | found;
}
