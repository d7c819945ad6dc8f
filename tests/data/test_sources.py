from omnialign.data.manifest import Manifest
from omnialign.data.webdataset import WebDataset
from omnialign.registry import registry


def test_the_core_s_sources_come_through_the_hooks_like_everything_else() -> None:
    assert registry().source("manifest") is Manifest
    assert registry().source("webdataset") is WebDataset
    (core,) = [plugin for plugin in registry().plugins if plugin.name == "core"]
    assert core.problem is None
    assert core.sources == ["manifest", "webdataset", "datasets", "datasets-stream"]
