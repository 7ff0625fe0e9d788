"""Images and captions in Milvus: a pair of collections for each dataset and its models.

Milvus finds candidates; they are ranked again exactly, as the databases on one machine rank them.
"""

import json
import os
import re
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from scale.cluster import AGAIN
from scale.entries import FIELDS, LONGEST_TEXT, Entry, Found, cut, ranked, ranked_by_caption
from scale.identity import Address, Sizes, said
from similarity_search import checked_k
from support.errors import PipelineError, SettingError, causes
from support.log import log
from support.search.nearest import MARGIN
from support.text import without_credentials

SPARE = 16  # candidates beside four times those wanted
MOST_CANDIDATES = 16_384  # of a search, which is Milvus's limit
SECONDS_TO_CONNECT, SECONDS_A_CALL = 10.0, 30.0
ATTEMPTS_TO_CONNECT = 3
PATIENCE = 180.0  # seconds; a killed Milvus was measured to answer searches again after 60
# How far an HNSW index looks: see benchmarks/README.md for these numbers.
HNSW = {"M": 16, "efConstruction": 128}
SEARCHED, MOST_SEARCHED = 4, 32_768  # of its vectors, times the candidates asked for
DESCRIPTION = "description"  # the key of the row that says what a pair of collections holds
# Codes of Milvus.
UNAVAILABLE, NOT_FOUND, NOT_LOADED = 2, 100, 101


class GalleryError(PipelineError):
    """A Milvus server or collection that cannot be used."""


class Gallery:
    """The two collections at an address; connects at once. Raises GalleryError, SettingError."""

    def __init__(self, address: Address):
        self.address = address
        self._images, self._captions = (f"{address.prefix}_{of}" for of in ("images", "captions"))
        self._client = _connect(address.url)

    # --- Made and opened --------------------------------------------------------------------------
    def open(self, wanted: Sizes | None = None) -> Sizes:
        """What its vectors are like.

        Raises GalleryError if there is no such gallery, if it is another's, or not as `wanted`.
        """
        if not self._exists():
            raise GalleryError(self._missing())
        for collection in (self._captions, self._images):
            self._ask("load_collection", collection)
        described = self._description(self._images)
        sizes = Sizes(*described.pop("sizes", (0, 0, None)))
        if described != self.address.identity() or (wanted and wanted[:2] != sizes[:2]):
            raise GalleryError(
                f"{self._images} at {self.address.url} says that it holds {described} of sizes "
                f"{sizes[:2]}, not {self.address.identity()} of {(wanted or sizes)[:2]}. Vectors "
                "of two models are never mixed: index under another --name."
            )
        return sizes

    def create(self, sizes: Sizes, ann: bool = False) -> Sizes:
        """`open`, of a gallery that is made where there is none; with `ann`, of an HNSW index."""
        texts = ("path", "captions", "generated", "source")
        self._create(self._captions, sizes.text_dimension, ("image", "caption"), ann)
        self._create(self._images, sizes.dimension, texts, ann)
        if not self._description(self._images):
            first = np.eye(1, sizes.dimension, dtype=np.float32)[0]
            described = json.dumps({**self.address.identity(), "sizes": sizes})
            row = {**Entry(DESCRIPTION, first, "", 0).row(), "captions": described}
            self._ask("upsert", self._images, data=[row])
        index = self._ask("describe_index", self._images, index_name="vector")
        if ann and index["index_type"] != "HNSW":
            raise GalleryError(
                f"The gallery '{self.address.name}' at {self.address.url} has an exact index. For "
                "an approximate one (--ann), index under another --name."
            )
        return self.open(sizes)

    def _description(self, images: str) -> dict[str, Any]:
        """What a collection of images says that it holds; nothing yet when it is new."""
        rows = self._ask("get", images, ids=[DESCRIPTION], output_fields=["captions"])
        return json.loads(rows[0]["captions"]) if rows else {}

    def _exists(self) -> bool:
        return all(self._ask("has_collection", c) for c in (self._captions, self._images))

    def _create(self, name: str, dimension: int, texts: Sequence[str], ann: bool) -> None:
        from pymilvus import DataType, MilvusClient

        if self._ask("has_collection", name):
            return
        described = json.dumps(self.address.identity())
        schema = MilvusClient.create_schema(auto_id=False, description=described)
        schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=80)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
        for text in texts:
            schema.add_field(text, DataType.VARCHAR, max_length=LONGEST_TEXT)
        if name == self._images:
            schema.add_field("number", DataType.INT64)
        kind = {"index_type": "HNSW", "params": HNSW} if ann else {"index_type": "FLAT"}
        index = MilvusClient.prepare_index_params("vector", metric_type="IP", **kind)
        options = {"schema": schema, "index_params": index, "consistency_level": "Session"}
        try:
            self._ask("create_collection", name, **options)
        except GalleryError:
            if not self._ask("has_collection", name):  # another worker was quicker
                raise

    def _missing(self) -> str:
        address = self.address
        names = self._client.list_collections()
        others = [n for n in names if re.fullmatch(rf"{address.name}_[0-9a-f]{{10}}_images", n)]
        text = (
            f"There is no gallery '{address.name}' of {said(address.identity())} at {address.url}"
        )
        for other in filter(None, map(self._description, others)):
            text += f"; there is one of {said(other)}"
        remedy = f"python -m scale index SOURCE {address.url} --name {address.name}"
        return f"{text}. Vectors of two models are never mixed. Index it first: {remedy}"

    # --- Written ----------------------------------------------------------------------------------
    def known(self, keys: Collection[str]) -> dict[str, Entry]:
        """Those of the images with these keys that the gallery holds."""
        if not keys:
            return {}
        rows = self._ask("get", self._images, ids=list(keys), output_fields=list(FIELDS))
        return {row["key"]: Entry.of(row) for row in rows}

    def put(self, entries: Sequence[Entry], vectors: Mapping[str, np.ndarray]) -> None:
        """Adds or replaces images; `vectors` are those of their captions that are new, by text."""
        texts = [
            (entry.key, key, text)
            for entry in entries
            for key, text in entry.texts().items()
            if text in vectors
        ]
        rows = [
            {"key": key, "vector": vectors[text], "image": image, "caption": cut(text)}
            for image, key, text in texts
        ]
        for start in range(0, len(rows), 1000):
            self._ask("upsert", self._captions, data=rows[start : start + 1000])
        if entries:  # last: an image that is there has its captions there
            self._ask("upsert", self._images, data=[entry.row() for entry in entries])

    # --- Searched ---------------------------------------------------------------------------------
    def neighbors(
        self, vectors: np.ndarray, keys: Sequence[str | None], sources: Collection[str] = ()
    ) -> list[list[Found]]:
        """The config.TOP_K_SIMILAR images most like each of `vectors` (B, D), never itself.

        By default all images, or those that give captions of `sources`. Among Milvus's candidates
        the order is that of similarity_search.Pool; with an exact index the images are too.
        """
        k = _wanted()
        named = json.dumps(list(sources))
        where = f"source in {named}" if sources else f'key != "{DESCRIPTION}"'
        found = self._candidates(self._images, vectors, k + 1, where, FIELDS)  # + 1: itself
        return [
            ranked(vector, [Entry.of(row) for row in rows if row["key"] != key], k)
            for vector, key, rows in zip(vectors, keys, found, strict=True)
        ]

    def captioned(self, query: np.ndarray) -> list[Found]:
        """The config.TOP_K_SIMILAR images whose best caption is most like `query` (D,)."""
        k = count = _wanted()
        fields = "key", "vector", "image", "caption"
        while True:
            (rows,) = self._candidates(self._captions, query[None], count, "", fields)
            images = self.known({row["image"] for row in rows})
            found = ranked_by_caption(query, rows, images, k)
            if len(found) == k or len(rows) < count or count >= MOST_CANDIDATES:
                return found
            count *= 4

    def _candidates(
        self, name: str, vectors: np.ndarray, k: int, where: str, fields: Sequence[str]
    ) -> list[list[dict[str, Any]]]:
        """For each of `vectors` (B, D) the rows that may be its `k` nearest, and some more."""
        count = min(4 * k + SPARE, MOST_CANDIDATES)
        while True:
            asked = {"data": list(vectors), "limit": count, "filter": where}
            depth = {"params": {"ef": min(SEARCHED * count, MOST_SEARCHED)}}
            hits = self._ask(
                "search", name, **asked, output_fields=list(fields), search_params=depth
            )
            # Equal similarities may go on beyond the last candidate.
            full = [h for h in hits if len(h) == count and _goes_on(h[k - 1 :])]
            if not full or count == MOST_CANDIDATES:
                return [
                    [{"key": h.get("id", h.get("key")), **h["entity"]} for h in one] for one in hits
                ]
            count = min(4 * count, MOST_CANDIDATES)

    # --- Asked ------------------------------------------------------------------------------------
    def _ask(self, method: str, name: str, **arguments: Any) -> Any:
        """Calls the server, again while it restarts. Raises GalleryError when it does not come."""
        import grpc
        from pymilvus.exceptions import MilvusException

        until = time.monotonic() + PATIENCE
        while True:
            try:
                return getattr(self._client, method)(name, timeout=SECONDS_A_CALL, **arguments)
            except (MilvusException, grpc.RpcError) as error:
                if not self._may_recover(name, error) or time.monotonic() > until:
                    raise self._explained(method, name, error) from error
                log.info("Milvus at %s does not answer (%s); waiting.", self.address.url, method)
                time.sleep(2)

    def _may_recover(self, name: str, error: Exception) -> bool:
        """Whether a server that answers this may be starting; a released collection is loaded."""
        import grpc
        from pymilvus.exceptions import MilvusException

        code = getattr(error, "code", None)
        released = code == NOT_LOADED or "released" in str(error) or "not loaded" in str(error)
        if released:
            with suppress(MilvusException, grpc.RpcError):
                self._client.load_collection(name, timeout=SECONDS_A_CALL)
        return released or code == UNAVAILABLE or isinstance(error, grpc.RpcError)

    def _explained(self, method: str, name: str, error: Exception) -> GalleryError:
        reason = getattr(error, "message", None) or type(error).__name__
        if getattr(error, "code", None) == NOT_FOUND:
            return GalleryError(
                f"The collection {name} is gone from {self.address.url}: it was dropped. Index it "
                f"again: python -m scale index. {AGAIN}"
            )
        failed = f"Milvus at {self.address.url} failed at {method} of {name}: {str(reason)[:300]}"
        return GalleryError(f"{failed}. Is it running? {AGAIN}")


def _connect(url: str) -> Any:
    """A client of the Milvus server at `url`; the token is that of MILVUS_TOKEN, if any."""
    from pymilvus import MilvusClient
    from pymilvus.exceptions import MilvusException
    from pymilvus.settings import init_log

    if not re.fullmatch(r"https?://[^/@?#\s]+(/\w*)?", url):
        raise SettingError(
            f"'{without_credentials(url)}' is no address of a Milvus server; it must be like "
            "http://host:19530 (a token goes into the variable MILVUS_TOKEN)."
        )
    init_log("CRITICAL")  # what it logs is raised too
    token = os.environ.get("MILVUS_TOKEN", "")
    for attempt in range(1, ATTEMPTS_TO_CONNECT + 1):
        try:
            return MilvusClient(url, token=token, timeout=SECONDS_TO_CONNECT)
        except (MilvusException, ValueError) as error:  # ValueError: no port
            if attempt < ATTEMPTS_TO_CONNECT and _was_idle(error):
                time.sleep(1)
                continue
            reason = getattr(error, "message", error)
            raise GalleryError(
                f"No Milvus server answers at {url}: {reason}. Check the address, and that it runs."
            ) from error
    raise AssertionError("unreachable")


def _was_idle(error: Exception) -> bool:
    """Whether a server has only closed a connection of before, which pymilvus shares and pings."""
    return any("Too many pings" in str(cause) for cause in causes(error))


def _wanted() -> int:
    """How many images are to be found. Raises SettingError for more than Milvus finds."""
    k = checked_k(None)
    if k >= MOST_CANDIDATES:
        raise SettingError(
            f"TOP_K_SIMILAR (--top-k) is {k}; a search in Milvus finds fewer than "
            f"{MOST_CANDIDATES:,} images."
        )
    return k


def _goes_on(hits: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last of `hits`, best first, is as similar as the first, up to MARGIN."""
    return hits[-1]["distance"] > hits[0]["distance"] - MARGIN
