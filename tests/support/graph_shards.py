"""Shards of a graph around a compacted topic of parts, and the bound of their embeddings."""

from __future__ import annotations

import numpy as np
from graph_parts import DIM, NODES, USERS, Fresh, edge_ops, reference

from graph_updater.graph.node_tables import RHO
from graph_updater.graph.parts import Parts
from graph_updater.graph.propagation import Propagation
from graph_updater.graph.shard import Shard
from graph_updater.graph.sharing import LEAST_SHARE, Sharing, Told

PARTITIONS = 3
MOST_ROUNDS = 40


class ShardGraph(Fresh):
    """One shard: all items, and the edges of its own users."""

    def __init__(self, shards, shard, *, users=USERS, nodes=NODES, dim=DIM, **given):
        super().__init__(nodes=nodes, dim=dim, **given)
        epsilon = given.get("epsilon", 0.0)
        self.propagation = Propagation(
            self.graph, dim, self.alphas, epsilon=epsilon, min_cosine=0.999, one_of_several=True
        )
        self.propagation.add_nodes(nodes)
        self.sharing = Sharing(self.graph, self.propagation, Shard(shard, shards), given.get("half_life_ms", 0))
        self.sharing.add_items(np.arange(users, nodes, dtype=np.int32))
        self.propagation.set_base(np.arange(nodes, dtype=np.int32), self.base)

    def change(self, ops):
        """Applies one micro-batch."""
        factor = self.graph.rescale_factor(int(ops.time.max()))
        if factor != 1.0:
            self.graph.rescale(factor)
            self.propagation.rescale(factor)
        self.sharing.follow_landmark()
        self.propagation.apply(self.graph.apply(ops))


class Shards:
    """Shards, their topic, and where each of them stands in it."""

    def __init__(self, count, *, users=USERS, nodes=NODES, **given):
        self.count, self.users = count, users
        self.shards = [ShardGraph(count, number, users=users, nodes=nodes, **given) for number in range(count)]
        self.base, self.alphas, self.epsilon = self.shards[0].base, self.shards[0].alphas, given.get("epsilon", 0.0)
        self.half_life_ms = given.get("half_life_ms", 0)
        self.topic = [[] for _ in range(PARTITIONS)]  # records (shard, item, part); None where one was compacted away
        self.read = np.zeros((count, PARTITIONS), int)
        self.told = 0

    def feed(self, stream, batch=7):
        """Applies the stream, each operation in the shard of its user."""
        for begin in range(0, len(stream), batch):
            for number, shard in enumerate(self.shards):
                own = [step for step in stream[begin : begin + batch] if step[0] % self.count == number]
                if own:
                    shard.change(edge_ops(own))

    def publish(self, number, *, of_own_edges=False):
        """Writes what a shard owes into the topic, or only what must not wait. Returns how many records."""
        sharing = self.shards[number].sharing
        nodes = sharing.take_owed(of_own_edges=of_own_edges)
        told = sharing.told(nodes)
        for row, node in enumerate(nodes.tolist()):
            self.topic[node % PARTITIONS].append((number, node, told.rows(np.array([row]))))
        self.told += nodes.size
        return nodes.size

    def deliver(self, number, partition, most=None):
        """Lets a shard read on in one partition; as from a poll, the last part of each key counts."""
        records, at = self.topic[partition], self.read[number, partition]
        end = len(records) if most is None else min(len(records), at + most)
        self.read[number, partition] = end
        latest = {(one[0], one[1]): one[2] for one in records[at:end] if one is not None and one[0] != number}
        told = []
        for sender in range(self.count):
            found = [(node, part) for (shard, node), part in latest.items() if shard == sender]
            if found:
                nodes = np.array([node for node, _ in found], np.int32)
                columns = zip(*(part for _, part in found), strict=True)
                told.append(Told(sender, nodes, Parts(*map(np.concatenate, columns))))
        self.shards[number].sharing.receive(told)

    def rewind(self, number, partition, to):
        """A shard reads again what it has read."""
        self.read[number, partition] = min(to, self.read[number, partition])

    def compact(self, partition):
        """Of each key only the last record stays."""
        seen = set()
        records = self.topic[partition]
        for offset in reversed(range(len(records))):
            if (record := records[offset]) is not None:
                if record[:2] in seen:
                    records[offset] = None
                seen.add(record[:2])

    def settle(self):
        """Reads and publishes until nothing is owed. Returns in how many rounds something was."""
        for rounds in range(MOST_ROUNDS):
            for number in range(self.count):
                for partition in range(PARTITIONS):
                    self.deliver(number, partition)
            owed = sum(self.publish(number) for number in range(self.count))
            if not owed:
                return rounds
        raise AssertionError(f"parts still move after {MOST_ROUNDS} rounds")

    def check_at_rest(self):
        """All shards have the same degree and number of edges for an item, and no part is beyond its limit."""
        items = np.arange(self.users, len(self.base), dtype=np.int32)
        adjacencies = [shard.graph.adjacency for shard in self.shards]
        degree = np.sum([one.degree[items] for one in adjacencies], axis=0)
        edges = np.sum([one.lists.length[items] for one in adjacencies], axis=0)
        for number, shard in enumerate(self.shards):
            tables, layers = shard.propagation.tables, shard.propagation.layers
            others = tables.head[items, RHO + 2 * layers :]
            np.testing.assert_allclose(adjacencies[number].degree[items] + others[:, 0], degree, rtol=1e-6)
            np.testing.assert_array_equal(adjacencies[number].lists.length[items] + others[:, 1], edges)
            own = tables.sums[items] - tables.pushed[items, layers:]
            apart = np.linalg.norm(own - shard.sharing.told(items).sums, axis=2)
            assert (apart <= 1.001 * shard.sharing.limits(items) + 1e-12).all()

    def errors(self, edges):
        """How far each embedding is from LGConv's: users in their own shard, items (shards, nodes) at the worst one."""
        exact = reference(edges, self.base, self.alphas)
        apart = np.stack([np.linalg.norm(shard.embeddings() - exact, axis=1) for shard in self.shards])
        return self._own(apart)

    def error_bounds(self):
        """The bound derived in `graph_updater.graph.sharing` from the limits that the shards have: (nodes,)."""
        layers, nodes = len(self.alphas) - 1, len(self.base)
        items = np.arange(self.users, nodes)
        edges = [shard.graph.edges_of(np.arange(nodes, dtype=np.int32)) for shard in self.shards]
        scales = self._scales()
        degree = np.sum(
            [np.bincount(one.node, one.weight * by, nodes) for one, by in zip(edges, scales, strict=True)], 0
        )
        inverse = np.divide(1.0, degree, out=np.zeros(nodes), where=degree > 0)
        untold = [np.zeros((nodes, layers)) for _ in self.shards]
        for shard, limits in zip(self.shards, untold, strict=True):
            limits[items] = shard.sharing.limits(items.astype(np.int32))
        untold = [limits * np.sqrt(by) for limits, by in zip(untold, scales, strict=True)]
        error, bound = np.zeros((self.count, nodes)), np.zeros((self.count, nodes))
        for layer in range(layers):
            sums = np.zeros((self.count, nodes))
            for number, (shard, one) in enumerate(zip(self.shards, edges, strict=True)):
                limits = shard.propagation.tables.head[:nodes, RHO + layers + layer] / np.sqrt(scales[number])
                weight = one.weight * scales[number]
                sums[number] = np.bincount(one.node, weight * (limits + error[number])[one.neighbour], nodes)
            of_items = sums[:, items].sum(axis=0)
            for number in range(self.count):
                others = [limits[items, layer] for other, limits in enumerate(untold) if other != number]
                sums[number, items] = of_items + np.sum(others, axis=0)
            error = sums * inverse
            bound += self.alphas[layer + 1] * sums * np.sqrt(inverse)
        return self._own(bound)

    def _scales(self):
        """What turns the weights of each shard into those of the first one: their landmarks may differ."""
        if not self.half_life_ms:
            return np.ones(self.count)
        landmarks = np.array([shard.graph.landmark_ms for shard in self.shards])
        return 2.0 ** ((landmarks - landmarks[0]) / self.half_life_ms)

    def _own(self, of_shards):
        """Of each user what its shard has, of each item the largest: (nodes,)."""
        users = np.arange(self.users)
        return np.concatenate([of_shards[users % self.count, users], of_shards[:, self.users :].max(axis=0)])


def epsilon_bounds_of_shards(edges, base, alphas, epsilon, shards):
    """The error of z that a tolerance of epsilon allows each node in any shard: (nodes,).

    From the definition in `graph_updater.graph.sharing` and exact values in double precision. Limits of an item are at
    most those that the least tolerant of its neighbours *in one shard* sets, so the most tolerant shard counts.
    Edges: pair to weight.
    """
    nodes = len(base)
    adjacency, owner = np.zeros((nodes, nodes)), {}
    for (user, item), weight in edges.items():
        adjacency[user, item] = adjacency[item, user] = weight
        owner[user] = user % shards
    degree, count = adjacency.sum(1), (adjacency > 0).sum(1)
    root = np.divide(1.0, np.sqrt(degree), out=np.zeros(nodes), where=degree > 0)
    tolerance = np.linalg.norm(reference(edges, base, alphas), axis=1) * count**0.4 * root
    users = {user for user, _ in edges}
    least = np.zeros(nodes)
    for node in np.flatnonzero(degree):
        around = np.flatnonzero(adjacency[node])
        groups = [around] if node in users else [around[around % shards == one] for one in range(shards)]
        least[node] = max(tolerance[group].min() for group in groups if group.size)
    is_item = np.array([node not in users for node in range(nodes)])
    x, error, bound = base.astype(float), np.zeros(nodes), np.zeros(nodes)
    untold = max(epsilon / np.sqrt(shards), LEAST_SHARE) * (shards - 1)
    for alpha in alphas[1:]:
        y = x * root[:, None]
        limit = epsilon * np.maximum(np.linalg.norm(y, axis=1), least)
        sums = adjacency @ (limit + error) + is_item * untold * np.linalg.norm(adjacency @ y, axis=1)
        error = sums * root**2
        bound += alpha * sums * root
        x = (adjacency @ y) * root[:, None]
    return bound
