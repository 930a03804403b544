"""The files that a tokenizer reads, by its class: a copy of `vocab_files_names` of transformers' classes.

The library itself need not be installed where models are planned. A test compares this table with it where it is
installed. Classes whose list differs between transformers 4 and 5 have both.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath

# Every tokenizer reads these if they exist.
COMMON = (
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
TEMPLATES = "additional_chat_templates/"

_BPE = ("vocab.json", "merges.txt")
_WORDPIECE = ("vocab.txt",)
_SPIECE = ("spiece.model",)
_SPM_BPE = ("sentencepiece.bpe.model",)
_LLAMA = ("tokenizer.model",)

_BY_FILES: dict[tuple[str, ...], str] = {
    (): "ByT5 Canine Perceiver Dia",
    _BPE: """Bart Blenderbot BlenderbotSmall CLIP Clvp CodeGen Cohere CTRL BioGpt Deberta Flaubert GPT2 GPTNeoX Herbert LED LayoutLMv3
        Longformer MarkupLM Mvp Nougat OpenAIGPT Phi Qwen2 Qwen2VL Roberta XLM""",
    (*_BPE, "normalizer.json"): "Whisper",
    (*_BPE, "entity_vocab.json"): "Luke",
    ("vocab-src.json", "vocab-tgt.json", "merges.txt"): "FSMT",
    ("vocab.json",): "FastSpeech2Conformer Mgpstr Vits Wav2Vec2CTC Wav2Vec2PhonemeCTC Wav2Vec2 Pop2Piano",
    _WORDPIECE: """Bert BertLegacy ConvBert CpmAnt DPRContextEncoder DPRQuestionEncoder DPRReader DistilBert Electra Esm Funnel LayoutLM
        LayoutLMv2 Lxmert MPNet MobileBert RetriBert RoFormer Splinter SqueezeBert Tapas""",
    ("vocab.txt", "spiece.model"): "BertJapanese",
    ("vocab.txt", "bpe.codes"): "Bertweet Phobert",
    ("vocab.txt", "emoji.json"): "GPTNeoXJapanese",
    ("vocab.txt", "word_shape.json", "word_pronunciation.json"): "RoCBert",
    _SPIECE: "Albert BertGeneration BigBird FNet GPTSw3 Lasr Pegasus Reformer Siglip T5 Udop VideoPrism XLNet",
    ("spiece.model", "tokenizer.model"): "Cpm",
    _SPM_BPE: "Barthez Camembert LayoutXLM MBart MBart50 Nllb PLBart SeamlessM4T XGLM XLMRoberta",
    ("sentencepiece.bpe.model", "vocab.json"): "M2M100 Speech2Text",
    ("sentencepiece.bpe.model", "dict.txt"): "Bartpho",
    ("sentencepiece.bpe.model", "entity_vocab.json"): "MLuke",
    ("sentencepiece.model",): "RemBert",
    ("spm.model",): "DebertaV2",
    ("spm_char.model",): "SpeechT5",
    ("source.spm", "target.spm", "vocab.json", "target_vocab.json"): "Marian",
    ("prophetnet.tokenizer",): "ProphetNet XLMProphetNet",
    ("byte_maps.json",): "MyT5",
    _LLAMA: """Llama CodeLlama Gemma Parakeet PreTrained Qwen3_5 TokenizersBackend SentencePieceBackend Tipsv2 InternLM2 ChatGLM4
        ChatGLM Baichuan""",
    ("tekken.json", "tokenizer.model", "tokenizer.model.v3"): "MistralCommon MistralCommonBackend",
    ("tokenizer.json",): "Esmc Siglip2",
    ("qwen.tiktoken",): "QWen",
}  # fmt: skip
# File names that libraries load vocabularies from, whatever the class.
ANY = (*dict.fromkeys(name for names in _BY_FILES for name in names), "dict.txt", "bpe.vocab", "vocab.bpe", "encoder.json")
_ANY_SUFFIXES = (".tiktoken", ".spm", ".bpe.model")
_BY_CLASS = {name: files for files, names in _BY_FILES.items() for name in names.split()}


def vocabulary_of(class_name: str) -> tuple[str, ...] | None:
    """The vocabulary files of a tokenizer class such as `T5TokenizerFast`; None for a class that is not in the table.

    An empty tuple: the class works on bytes or characters and has no vocabulary.
    """
    if class_name in ("PreTrainedTokenizerFast", "TokenizersBackend", "SentencePieceBackend"):
        return _LLAMA
    base, found, rest = class_name.partition("Tokenizer")
    return _BY_CLASS.get(base) if found and rest in ("", "Fast", "Legacy") else _BY_CLASS.get(class_name)


def tokenizer_files(class_name: str, names: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Those of a folder's files (relative paths) that a tokenizer reads, and the files of which it needs at least one
    (empty when it needs none or that is unknown).
    """
    vocabulary = vocabulary_of(class_name)
    wanted = {*COMMON, *(ANY if vocabulary is None else vocabulary)}
    taken = [
        name
        for name in names
        if name in wanted or name.startswith(TEMPLATES) or (vocabulary is None and "/" not in name and name.endswith(_ANY_SUFFIXES))
    ]
    return taken, ("tokenizer.json", *vocabulary) if vocabulary else ()


def is_vocabulary(path: str) -> bool:
    """Whether some tokenizer reads a file of this name."""
    name = PurePosixPath(path).name
    return name in COMMON or name in ANY or name.endswith(_ANY_SUFFIXES)
