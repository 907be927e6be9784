"""What requests and answers look like: checked here, and shown in /openapi.json."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

_TEXTS = [{"type": "string"}, {"type": "array", "items": {}}, {"type": "object"}]
Input = Annotated[Any, WithJsonSchema({"anyOf": _TEXTS})]
"""One item or a list of them; `vitlens.serve.content` says what an item is."""


class Body(BaseModel):
    """A request whose fields are all known."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    model: str | None = Field(None, description="The model's name; left out, the one that is served.")
    user: str | None = Field(None, description="Taken, and not used.")


class Inputs(Body):
    """What is to be embedded, in one of the two forms."""

    input: Input = Field(None, description="A text, a part, a mixture of parts, or a list of these: one embedding each.")
    modality: str = Field("text", description="What strings in `input` are: texts, or addresses and base64 of this sensor.")
    messages: Any = Field(None, description="vLLM's form: a conversation, or a list of them; one embedding each.")


class EmbeddingRequest(Inputs):
    """POST /v1/embeddings."""

    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1, description="Keep so many first values, and make the length 1 again.")
    truncate_prompt_tokens: Any = Field(None, description="Of vLLM; taken and not used: long texts are cut anyway.")
    add_special_tokens: Any = Field(None, description="Of vLLM; taken and not used.")
    priority: Any = Field(None, description="Of vLLM; taken and not used.")


class EmbeddingData(BaseModel):
    """One embedding."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="Numbers, or base64 of little-endian float32.")


class Usage(BaseModel):
    """Tokens of the texts; sensors cost none."""

    prompt_tokens: int
    total_tokens: int


class Remark(BaseModel):
    """What a reader has to say of an item that it read: a gap, a unit, a word that the model does not know."""

    index: int
    text: str


class EmbeddingReply(BaseModel):
    """The answer of /v1/embeddings."""

    object: Literal["list"] = "list"
    data: list[EmbeddingData]
    model: str
    usage: Usage
    remarks: list[Remark] | None = None


class ClassifyRequest(Inputs):
    """POST /v1/classify."""

    labels: list[str] = Field(min_length=1, description="Class names.")
    templates: list[str] | None = Field(None, description="Prompts with {} in the place of the class name.")
    top: int = Field(5, ge=1, description="Labels per item.")


class Label(BaseModel):
    """A class name, how probable it is among the others, and its cosine."""

    label: str
    probability: float
    cosine: float


class Classified(BaseModel):
    """One item's best labels, best first."""

    index: int
    labels: list[Label]


class ClassifyReply(BaseModel):
    """The answer of /v1/classify."""

    object: Literal["list"] = "list"
    data: list[Classified]
    model: str
    remarks: list[Remark] | None = None


class SimilarityRequest(Inputs):
    """POST /v1/similarity."""

    other: Input = Field(None, alias="with", description="What `input` is compared with; left out, itself.")
    with_modality: str | None = Field(None, description="What strings in `with` are; left out, as in `input`.")


class SimilarityReply(BaseModel):
    """The answer of /v1/similarity: cosines [n, m]."""

    model: str
    space: str
    cosines: list[list[float]]
    remarks: list[Remark] | None = None


class SearchRequest(Inputs):
    """POST /v1/search; each item is a query of its own, its parts are weighted terms."""

    k: int = Field(10, ge=1, description="Hits per query.")
    where: str | None = Field(None, max_length=10_000, description="A filter in SQL over the index's columns.")
    modalities: list[str] = Field([], description="Of the hits; none: all.")
    calibrate: Literal["center", "none"] = "center"
    exact: bool = Field(False, description="Look at every row.")


class SearchReply(BaseModel):
    """The answer of /v1/search: per query what `vitlens index search --json` prints."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    model: str
    remarks: list[Remark] | None = None


class SceneRequest(Inputs):
    """POST /v1/scene; one item, whose parts are mixed by weight."""

    places: int = Field(3, ge=1, le=100, description="Places that are wanted, at most.")
    share: float = Field(0.5, ge=0, le=1, description="How warm a place is, from the median of the scene to its best voxel.")
    heat: bool = Field(False, description="Also every voxel's cosine, as base64 of little-endian float32 (NaN: not seen).")


class SceneReply(BaseModel):
    """The answer of /v1/scene: places in metres of the scene, best first, with the frames that show them."""

    places: list[dict[str, Any]]
    heat: str | None = None
    model: str
    remarks: list[Remark] | None = None


class ChatRequest(Inputs):
    """POST /v1/chat/completions: one question about files, in OpenAI's messages, or as a form with a `question`."""

    question: str | None = Field(None, description="Of a form; in messages the texts are the question.")
    max_tokens: int | None = Field(None, ge=1, le=4096, description="Of the answer.")
    stream: bool = Field(False, description="Only false.")


class CohereRequest(BaseModel):
    """POST /v2/embed, as Cohere shapes it."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    texts: list[str] | None = None
    images: list[str] | None = Field(None, description="data: URIs.")
    inputs: list[Any] | None = Field(None, description='Items with their "content": parts of any sensor.')
    input_type: str | None = Field(None, description="Taken, and not used: one space for queries and documents.")
    embedding_types: list[Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]] | None = None
    output_dimension: int | None = Field(None, ge=1)
    truncate: str | None = Field(None, description="Taken, and not used: long texts are cut at their end.")
    max_tokens: int | None = Field(None, description="Taken, and not used.")


class PreviewRequest(Inputs):
    """POST /v1/preview; one thing."""

    dark: bool = Field(False, description="Whether the picture is for a dark page.")


class PreviewReply(BaseModel):
    """The answer of /v1/preview: what a file is, how it looks, and what the model gets of it."""

    modality: str
    facts: dict[str, str]
    steps: list[str] = Field(description="How it is preprocessed.")
    gets: str | None = Field(None, description="What the model gets of it.")
    picture: str | None = Field(None, description="A PNG in base64, without a ground of its own.")
    explore: dict[str, Any] = Field({}, description="What can be turned or pointed at; arrays as dtype, shape and base64.")
    remarks: list[str] = []


class Problem(BaseModel):
    """What went wrong, in a sentence."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorReply(BaseModel):
    """Any refusal, in OpenAI's shape."""

    error: Problem
