"""Programs that cannot be: the user reads the compiler's or the verifier's own words."""

from __future__ import annotations

import pytest

from appliance.datapath.bpf import BpfDatapath
from appliance.datapath.driver import DatapathError
from appliance.datapath.loader import Sizes

pytestmark = pytest.mark.root


def test_a_program_that_the_kernel_refuses_is_reported_with_the_verifiers_words(monkeypatch: pytest.MonkeyPatch) -> None:
    from appliance.datapath import loader

    original = loader.amalgamate
    broken = "int ofswitch_tc(struct __sk_buff *skb)\n{\n"
    monkeypatch.setattr(
        loader, "amalgamate", lambda: original().replace(broken, broken + "\treturn *(volatile int *)(long)skb->data;\n", 1)
    )
    with pytest.raises(DatapathError, match=r"cannot load ofswitch_tc[\s\S]*invalid access to packet"):
        BpfDatapath(Sizes(megaflows=64, upcall_pages=64))


def test_a_program_that_does_not_compile_is_reported_with_file_and_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from appliance.datapath import loader

    original = loader.amalgamate
    monkeypatch.setattr(loader, "amalgamate", lambda: original().replace("#define TC_ACT_SHOT 2", "nonsense nonsense;"))
    with pytest.raises(DatapathError, match=r"cannot compile bpf_prog[\s\S]*actions\.h:\d+:\d+: error: unknown type name"):
        BpfDatapath(Sizes(megaflows=64, upcall_pages=64))
