/* SPDX-License-Identifier: GPL-2.0 */
/* Tunnel ports: several share one device of the kernel, which en- and decapsulates as its packets' metadata says.
 *
 * A packet that leaves by one gets new metadata each time, also a copy. Metadata of the tunnel that it came by never leads it anywhere:
 * the kernel sends by what we set alone (mode TX), and all devices but tunnels drop it. appliance/model/tunnel.py is the reference.
 */
#pragma once

#define TOS_DSCP 0xfc

/* Between host and network order. */
static __always_inline u64 swap64(u64 value)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return __builtin_bswap64(value);
#else
	return value;
#endif
}

/* The port that a packet of a tunnel device came by. */
static __always_inline void came_by(struct packet *p, u32 number)
{
	struct port *port = ports_at(number);

	p->number = number;
	p->port_flags = port ? port->flags : 0;
}

/* Fills in the key, and by which port the packet came: none, if none fits. `ways`: in which ways ports of this device match. */
static __always_inline void leave_tunnel(struct packet *p, struct __sk_buff *skb, u32 ways)
{
	struct tunnel_key key = {};
	u32 ipv6 = 0;

	p->number = 0;
	if (bpf_skb_get_tunnel_key(skb, (void *)&key, sizeof(key), 0) < 0) {
		if (bpf_skb_get_tunnel_key(skb, (void *)&key, sizeof(key), BPF_F_TUNINFO_IPV6) < 0)
			return;
		ipv6 = TUNNEL_IPV6;
	}
	p->key.f.tunnel_id = swap64(key.id);
	if (!ipv6) {
		p->key.f.tun_src = bpf_htonl(key.remote[0]);
		p->key.f.tun_dst = bpf_htonl(key.local[0]);
	}
	/* What is fixed comes first, the key before the addresses, as in Open vSwitch. */
	no_unroll for (u32 n = 0; n < 8; n++) {
		u32 fixed = 7 - n;
		if (!(ways >> fixed & 1))
			continue;
		struct tunnel_end end = {.ifindex = skb->ifindex, .fixed = fixed};
		if (fixed & TUNNEL_KEY)
			end.id = key.id;
		if (fixed & TUNNEL_REMOTE)
			__builtin_memcpy(end.remote, key.remote, 16);
		if (fixed & TUNNEL_LOCAL)
			__builtin_memcpy(end.local, key.local, 16);
		if (fixed & (TUNNEL_REMOTE | TUNNEL_LOCAL))
			end.fixed |= ipv6;
		u32 *number = tunnel_ends.lookup(&end);
		if (number) {
			came_by(p, *number);
			return;
		}
	}
}

/* Says where the tunnel device is to send the packet: `key` is its own tunnel fields, in host order, 0 for nothing, with its own type of
 * service and TTL. Changes it to what the kernel is told. 0 if that is nowhere. */
static __always_inline int enter_tunnel(struct __sk_buff *skb, u32 number, struct tunnel_key *key)
{
	const struct tunnel *port = tunnels.lookup(&number);

	if (!port)
		return 0;
	key->id = port->id | (key->id & port->id_open);
	key->remote[0] = port->remote[0] | (key->remote[0] & port->remote_open);
	key->local[0] = port->local[0] | (key->local[0] & port->local_open);
	__builtin_memcpy(key->remote + 1, port->remote + 1, 12);
	__builtin_memcpy(key->local + 1, port->local + 1, 12);
	key->tos = port->tos | (key->tos & port->tos_open & TOS_DSCP);
	key->ttl &= port->ttl_open;
	if (!key->ttl)
		key->ttl = port->ttl;
	key->flags = 0;
	key->label = 0;
	if (!(key->remote[0] | key->remote[3]))
		return 0;
	if (!bpf_skb_set_tunnel_key(skb, (void *)key, sizeof(*key), port->flags))
		return 1;
	/* Older kernels give every packet a key. */
	return !bpf_skb_set_tunnel_key(skb, (void *)key, sizeof(*key), port->flags & ~SEND_WITHOUT_KEY);
}

/* The same for a packet of the fast path. The addresses of the tunnel that it came by lead nowhere: not back to where we are. */
static __always_inline int enter_tunnel_as(struct packet *p, struct __sk_buff *skb, u32 number)
{
	p->tunnel.id = swap64(p->key.f.tunnel_id);
	p->tunnel.remote[0] = p->key.f.tun_dst != p->tun_dst ? bpf_ntohl(p->key.f.tun_dst) : 0;
	p->tunnel.local[0] = p->key.f.tun_src != p->tun_src ? bpf_ntohl(p->key.f.tun_src) : 0;
	p->tunnel.tos = p->key.f.ip_tos;
	p->tunnel.ttl = p->key.f.ip_ttl;
	return enter_tunnel(skb, number, &p->tunnel);
}
