/* SPDX-License-Identifier: GPL-2.0 */
/* Flow key → megaflow: the exact-match cache, then one probe a subtable.
 *
 * Hashes only say where to look: a megaflow is used after its whole key was compared, so a collision costs speed, never rightness.
 */
#pragma once

#define HASH_FINAL 0x9e3779b97f4a7c15ULL

/* Adds word n, folded so that its high bits count too, times a random odd constant. appliance/datapath/index.py does the same. */
static __always_inline u64 hash_word(u64 word, u64 constant)
{
	return (word ^ word >> 32) * constant;
}

static __always_inline u64 hash_masked(const u64 *key, const u64 *mask)
{
#define TERM(n) hash_word(key[n] & mask[n], HASH_##n)
	u64 hash = TERM(0) + TERM(1) + TERM(2) + TERM(3) + TERM(4) + TERM(5) + TERM(6) + TERM(7) + TERM(8) + TERM(9) + TERM(10) +
		   TERM(11) + TERM(12) + TERM(13) + TERM(14) + TERM(15);
#undef TERM
	/* The sum is linear in the words: without this, flows that count up may crowd in few buckets. */
	hash = (hash ^ hash >> 32) * HASH_FINAL;
	return hash ^ hash >> 32;
}

/* Only a hint of where the cache may have it: the words in which flows differ most. */
static __always_inline u32 hash_hint(const u64 *w)
{
	u64 hash = hash_word(w[3], HASH_3) + hash_word(w[4], HASH_4) + hash_word(w[5], HASH_5) + hash_word(w[6], HASH_6) +
		   hash_word(w[8], HASH_8) + hash_word(w[9], HASH_9);
	return hash >> 40;
}

static __always_inline int equal(const u64 *a, const u64 *b)
{
#define DIFF(n) (a[n] ^ b[n])
	return !(DIFF(0) | DIFF(1) | DIFF(2) | DIFF(3) | DIFF(4) | DIFF(5) | DIFF(6) | DIFF(7) | DIFF(8) | DIFF(9) | DIFF(10) | DIFF(11) |
		 DIFF(12) | DIFF(13) | DIFF(14) | DIFF(15));
#undef DIFF
}

static __always_inline int equal_masked(const u64 *key, const u64 *mask, const u64 *value)
{
#define DIFF(n) ((key[n] & mask[n]) ^ value[n])
	return !(DIFF(0) | DIFF(1) | DIFF(2) | DIFF(3) | DIFF(4) | DIFF(5) | DIFF(6) | DIFF(7) | DIFF(8) | DIFF(9) | DIFF(10) | DIFF(11) |
		 DIFF(12) | DIFF(13) | DIFF(14) | DIFF(15));
#undef DIFF
}

/* The megaflow for a key, and its slot; NULL on a miss. Writes the cache. */
static __always_inline struct megaflow *lookup(struct packet *p, u32 *slot)
{
	const u64 *key = p->key.w;
	u32 zero = 0, place = (hash_hint(key) & (CACHE_ENTRIES - 1)) + bpf_get_smp_processor_id() * CACHE_ENTRIES;
	struct cache_entry *entry = cache.lookup(&place);
	if (!entry)
		return NULL;
	if (entry->slot && equal(entry->key, key)) {
		u32 cached = entry->slot - 1;
		struct megaflow *megaflow = megaflows.lookup(&cached);
		if (megaflow && megaflow->generation == entry->generation) {
			*slot = cached;
			return megaflow;
		}
	}
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
		u64 hash = hash_masked(key, subtable->mask);
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
		struct megaflow *megaflow = megaflows.lookup(&candidate);
		if (!megaflow)
			continue;
		/* Read before the comparison: should the slot get a new use meanwhile, the cache entry does not fit that. One that is
		 * being removed (0) must not get into the cache: it would stay there. */
		u32 generation = *(volatile u32 *)&megaflow->generation;
		if (!generation || megaflow->subtable != n || !equal_masked(key, subtable->mask, megaflow->key))
			continue;
		__builtin_memcpy(entry->key, key, sizeof(entry->key));
		entry->slot = found;
		entry->generation = generation;
		*slot = candidate;
		return megaflow;
	}
	return NULL;
}
