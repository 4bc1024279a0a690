/* SPDX-License-Identifier: GPL-2.0 */
/* What most rewrites are: fields of Ethernet, IPv4, TCP and UDP in a common packet that then goes out. All of them are set at once, in
 * the words of the key, and the words are written to the headers: no op by op. The frame is the same as the ops would make it.
 */
#pragma once

static __always_inline const struct edit *edit_of(const struct megaflow_body *body)
{
	return (const struct edit *)&body->ops[EDIT_OPS];
}

static __always_inline void edit_words(struct common *c, const struct edit *edit, u8 ttl_taken)
{
	u64 taken = join32(0, join16(join8(ttl_taken, 0), 0));

	c->w4 = (c->w4 & edit->keep[0]) | edit->set[0];
	c->w5 = (c->w5 & edit->keep[1]) | edit->set[1];
	c->w6 = ((c->w6 - taken) & edit->keep[2]) | edit->set[2];
	c->w9 = (c->w9 & edit->keep[3]) | edit->set[3];
}

/* The headers but for their checksums. Their bounds have been checked, up to the ports. */
static __always_inline void write_common(void *data, const struct common *c)
{
	struct ipv4_header *ip = data + sizeof(struct eth_header);

	*(u64 *)data = c->w4;
	*(u32 *)(data + 8) = first32(c->w5);
	ip->tos = byte_of(c->w6, TOS_BYTE);
	ip->ttl = byte_of(c->w6, TTL_BYTE);
	*(u64 *)&ip->src = c->w9;
	*(u32 *)(data + sizeof(struct eth_header) + sizeof(*ip)) = first32(c->w6);
}

static __always_inline int retag(struct packet *p, struct hook hook, const struct edit *edit)
{
	return edit->retag == RETAG_PUSH ? push_tag(p, hook, edit->tpid, edit->tci) : pop_tag(p, hook);
}

/* Differences of sums as in struct packet, not folded at all; 0 for none. */
struct differences {
	u64 ipv4, l4, pseudo;
};

static __always_inline u64 difference(u32 from, u32 to)
{
	return (u64)(u32)~from + to;
}

/* A field that is set counts as changed even if it stays the same, as it does with ops. */
static __always_inline struct differences differences(const struct common *from, const struct common *to, const struct edit *edit,
							u32 ttl_taken)
{
	struct differences result = {};

	if (~edit->keep[3])
		result.pseudo = difference(first32(from->w9), first32(to->w9)) + difference(second32(from->w9), second32(to->w9));
	result.ipv4 = result.pseudo;
	/* TTL, protocol and TOS are first or second in their 16 bits as they are in the header's. */
	if (~second32(edit->keep[2]) || ttl_taken)
		result.ipv4 += difference(second32(from->w6), second32(to->w6));
	if (~first32(edit->keep[2]))
		result.l4 = difference(first32(from->w6), first32(to->w6));
	return result;
}

/* As the kernel's helpers take it. */
static __always_inline u32 folded(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (sum & 0xffffffff) + (sum >> 32);
}

/* As replace_sum, of a difference that is not folded: it is not 0, so that the sum of the two never is. */
static __always_inline u16 replaced_sum(u16 checksum, u64 difference)
{
	u64 sum = (u16)~checksum + difference;
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}
