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

static __always_inline u64 hash_masked(const u64 *key, const u64 *mask, int wide)
{
#define TERM(n) hash_word(key[n] & mask[n], HASH_##n)
	u64 hash = TERM(3) + TERM(4) + TERM(5) + TERM(6) + TERM(9) + TERM(11);
	if (wide)
		hash += TERM(0) + TERM(1) + TERM(2) + TERM(7) + TERM(8) + TERM(10) + TERM(12) + TERM(13) + TERM(14) + TERM(15);
#undef TERM
	/* The sum is linear in the words: without this, flows that count up may crowd in few buckets. */
	hash = (hash ^ hash >> 32) * HASH_FINAL;
	return hash ^ hash >> 32;
}

static __always_inline int equal_masked(const u64 *key, const u64 *mask, const struct megaflow *megaflow, int wide)
{
	const u64 *value = megaflow->key;
#define DIFF(n) ((key[n] & mask[n]) ^ value[n])
	u64 diff = DIFF(3) | DIFF(4) | DIFF(5) | DIFF(6) | DIFF(9) | DIFF(11);
	if (wide)
		diff |= DIFF(0) | DIFF(1) | DIFF(2) | DIFF(7) | DIFF(8) | DIFF(10) | DIFF(12) | DIFF(13) | DIFF(14) | DIFF(15);
	else
		diff |= megaflow->flags & MEGAFLOW_WIDE;
#undef DIFF
	return !diff;
}

/* Where the cache may have it: by the words in which flows differ most. Its best bits are the highest. */
static __always_inline u64 hash_hint(const u64 *w)
{
	return w[3] * HASH_3 + w[4] * HASH_4 + w[5] * HASH_5 + w[6] * HASH_6 + w[8] * HASH_8 + w[9] * HASH_9 + w[10] * HASH_10;
}

static __always_inline struct cache_set *cache_set(u64 hint, u32 cpu)
{
	u32 place = (hint >> 40 & (CACHE_SETS - 1)) + cpu * CACHE_SETS;
	return cache.lookup(&place);
}

/* The slot that the cache has for it, or NO_SLOT. It may have a new use since: who takes it compares as if it were found anew. */
static __always_inline u32 cached_slot(const struct cache_set *set, u64 hint)
{
	u64 found = 0, tag = hint >> 32;
#pragma unroll
	for (int way = CACHE_WAYS - 1; way >= 0; way--) {
		u64 value = set->way[way];
		if (value >> 32 == tag)
			found = value;
	}
	return (u32)found - 1;
}

/* The cache's megaflow for a key, and its slot; NULL if it has none. */
static __always_inline struct megaflow *cached(const struct cache_set *set, u64 hint, const u64 *key, int wide, u32 *slot)
{
	u32 candidate = cached_slot(set, hint);
	struct megaflow *megaflow = megaflows.lookup(&candidate);
	if (!megaflow)
		return NULL;
	u32 number = *(volatile u32 *)&megaflow->subtable;
	struct subtable *subtable = subtables.lookup(&number);
	if (!subtable || !equal_masked(key, subtable->mask, megaflow, wide))
		return NULL;
	*slot = candidate;
	return megaflow;
}

/* The megaflow for a key, and its slot; NULL on a miss. Writes the cache. */
static __always_inline struct megaflow *lookup(struct packet *p, u32 *slot)
{
	const u64 *key = p->key.w;
	u64 hint = hash_hint(key);
	u32 zero = 0;
	int wide = is_wide(key);
	struct cache_set *set = cache_set(hint, p->cpu);
	if (!set)
		return NULL;
	struct megaflow *megaflow = cached(set, hint, key, wide, slot);
	if (megaflow)
		return megaflow;
	struct settings *s = settings.lookup(&zero);
	if (!s)
		return NULL;
	u32 count = s->subtables;
	no_unroll for (u32 n = 0; n < MAX_SUBTABLES; n++) {
		opaque(n);
		if (n >= count)
			break;
		u32 index = n;
		struct subtable *subtable = subtables.lookup(&index);
		if (!subtable)
			break;
		if (!subtable->used)
			continue;
		u64 hash = hash_masked(key, subtable->mask, wide);
		u32 at = ((u32)hash + n) & (BUCKETS - 1), tag = hash >> 32 | 1, found = 0;
		struct bucket *bucket = buckets.lookup(&at);
		if (!bucket)
			break;
#pragma unroll
		for (int way = 0; way < BUCKET_WAYS; way++) {
			u64 value = bucket->way[way];
			if (value >> 32 == tag)
				found = value;
		}
		if (!found)
			continue;
		u32 candidate = found - 1;
		megaflow = megaflows.lookup(&candidate);
		if (!megaflow || megaflow->subtable != n || !equal_masked(key, subtable->mask, megaflow, wide))
			continue;
#pragma unroll
		for (int way = CACHE_WAYS - 1; way > 0; way--)
			set->way[way] = set->way[way - 1];
		set->way[0] = (hint >> 32) << 32 | found;
		*slot = candidate;
		return megaflow;
	}
	return NULL;
}
