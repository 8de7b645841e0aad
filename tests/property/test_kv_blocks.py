"""KVBlocks against its plain model on any sequence of calls, good and bad."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from reference import kv_blocks
from reference.eviction_models import model_of

import infcore
from infcore.continuous import eviction_policies


class BlocksMachine(RuleBasedStateMachine):
    """Users take, share, name, find and give back blocks in any order, also out of the middle of a chain."""

    @initialize(n_blocks=st.integers(1, 8), policy=st.sampled_from(eviction_policies()))
    def make(self, n_blocks: int, policy: str) -> None:
        self.kv = infcore.KVBlocks(n_blocks, 2, policy=policy)
        self.model = kv_blocks.KVBlocks(n_blocks, 2, model_of(policy))

    @rule(n=st.integers(0, 9))
    def alloc(self, n: int) -> None:
        got, wanted = self.kv.alloc(n), self.model.alloc(n)
        assert (None if got is None else got.tolist()) == wanted

    @rule(blocks=st.lists(st.integers(-1, 8), max_size=4), share=st.booleans())
    def free_or_share(self, blocks: list[int], share: bool) -> None:
        call = self.kv.share if share else self.kv.free
        bad = next((i for i, b in enumerate(blocks) if not self.is_used(b, blocks[:i].count(b))), None)
        if bad is not None:
            with pytest.raises(infcore.InvalidArgument, match=rf"blocks\[{bad}\] is {blocks[bad]}; allowed: "):
                call(blocks)
        else:
            call(np.array(blocks, np.int32))
            (self.model.share if share else self.model.free)(blocks)

    def is_used(self, block: int, n_before: int) -> bool:
        return 0 <= block < len(self.model.uses) and self.model.uses[block] > n_before

    @rule(n=st.integers(1, 3), named_from=st.integers(0, 4), data=st.data())
    def store(self, n: int, named_from: int, data: st.DataObject) -> None:
        """Names n used blocks as the next of the chain 100, 101, ... or of another one that parts from it at 102."""
        plain = [b for b, uses in enumerate(self.model.uses) if uses > 0 and self.model.name[b] is None][:n]
        names = [name + 50 * (name >= 102 and data.draw(st.booleans())) for name in range(100, 110)]
        parent = None
        if named_from > 0:
            if names[named_from - 1] not in self.model.name:
                return
            parent = self.model.name.index(names[named_from - 1])
        names = names[named_from : named_from + len(plain)]
        got = self.kv.store(plain, names, parent=parent).tolist()
        for at, (block, name) in enumerate(zip(plain, names, strict=True)):
            parent = self.model.store(block, name, parent)
            assert got[at] == parent

    @rule(first=st.sampled_from([100, 100, 101, 102, 103]), n=st.integers(0, 6), other=st.booleans())
    def match(self, first: int, n: int, other: bool) -> None:
        """Also from the middle of a chain: what lies before is then held, and not used."""
        names = [name + 50 * (name >= 102 and other) for name in range(first, first + n)]
        assert self.kv.n_matching(names) == len(self.model.peek(names))
        assert self.kv.match(np.array(names, np.uint64)).tolist() == self.model.match(names)

    @rule()
    def drop_cached(self) -> None:
        assert self.kv.drop_cached() == self.model.drop_cached()

    @invariant()
    def as_the_model(self) -> None:
        if not hasattr(self, "kv"):
            return
        assert [self.kv.n_uses(block) for block in range(self.kv.n_blocks)] == self.model.uses
        assert self.kv.n_free == len(self.model.free_stack)
        assert self.kv.n_cached == len(self.model.cached())
        assert self.kv.n_available == self.model.n_available()


BlocksMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestKVBlocks = BlocksMachine.TestCase
