/* SPDX-License-Identifier: GPL-2.0 */
/* Which bucket of a group a packet takes. appliance/packet/select.py is the reference for the hash. */
#pragma once

static __always_inline u32 select_hash(const struct packet *p)
{
	const u64 *w = p->key.w;
	/* Of words 5, 6, 7 and 11 only the half that is a MAC address's, the ports', or an IP address's. */
	union {
		u8 byte[8];
		u64 word;
	} first = {.byte = {255, 255, 255, 255}}, last = {.byte = {0, 0, 0, 0, 255, 255, 255, 255}};
	u64 hash = hash_word(w[4], 0x6a09e667f3bcc909ULL) + hash_word(w[5] & first.word, 0xbb67ae8584caa73bULL);
	if (LAYER_IS(p, LAYER_IPV4 | LAYER_IPV6 | LAYER_ARP))
		hash += hash_word(w[7] & last.word, 0xa54ff53a5f1d36f1ULL) + hash_word(w[8], 0x510e527fade682d1ULL) +
			hash_word(w[9], 0x9b05688c2b3e6c1fULL) + hash_word(w[10], 0x1f83d9abfb41bd6bULL) +
			hash_word(w[11] & first.word, 0xcbbb9d5dc1059ed9ULL);
	if (LAYER_IS(p, LAYER_TCP | LAYER_UDP | LAYER_SCTP))
		hash += hash_word(w[6] & first.word, 0x3c6ef372fe94f82bULL);
	return ((hash ^ hash >> 32) * 0x5be0cd19137e2179ULL) >> 32;
}

/* Puts the slot of the way to take in `*slot`; 0 if there is none. */
static __always_inline int choose(struct packet *p, u32 index, u32 *slot)
{
	struct choice *choice = choices.lookup(&index);

	if (!choice)
		return 0;
	u32 select = choice->kind == CHOICE_SELECT, hash = select ? select_hash(p) : 0, last = choice->ways - 1;
	no_unroll for (u32 n = 0; n < MAX_WAYS; n++) {
		opaque(n);
		if (n > last || !choice->ways)
			return 0;
		const struct way *way = &choice->way[n];
		u32 value = way->value;
		int taken;
		if (select) {
			taken = hash < value || n == last;
		} else {
			struct port *port = value ? ports_at(value) : NULL;
			taken = !value || (port && port->flags & PORT_LIVE);
		}
		if (taken) {
			*slot = way->slot;
			return 1;
		}
	}
	return 0;
}
