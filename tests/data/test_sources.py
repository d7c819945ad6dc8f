from omnialign.data.manifest import Manifest
from omnialign.registry import registry


def test_the_manifest_comes_through_the_hooks_like_everything_else() -> None:
    assert registry().source("manifest") is Manifest
    (core,) = [plugin for plugin in registry().plugins if plugin.name == "core"]
    assert core.problem is None
    assert core.sources == ["manifest"]
