"""Teachers of transformers: each family tiny and random, saved, and loaded as a user would."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from click.testing import CliRunner
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from nanocap.cli import group
from nanocap.distill.labelling.photos import PhotoShards
from nanocap.distill.teachers import Scored, Teacher, load_teacher
from nanocap.distill.teachers.families import FAMILIES, family_of
from nanocap.distill.teachers.settings import Settings
from nanocap.errors import DataError, NanocapError, OptionError

WORDS = "a the red green blue cat dog bird sits runs sleeps on under near grass snow road".split()
PAD, START, END, UNKNOWN = range(4)
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>", "<image>", "<|image_pad|>", "<|video_pad|>")
IDEFICS = ("<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
ROWS = tuple(f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7))
VISION = ("<|vision_start|>", "<|vision_end|>", "<video>")
ADDED = (*SPECIALS, *IDEFICS, *ROWS, *VISION)
PROMPT = "describe what you see"
IMAGE = ADDED.index("<image>")
SIZE, PATCH = 16, 8  # pixels a side, of photo and patch

TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT |= {"intermediate_size": 32, "initializer_range": 0.5}
VIT = {**TEXT, "image_size": SIZE, "patch_size": PATCH}


def tokenizer(**more: Any) -> tf.PreTrainedTokenizerFast:
    """Whole words; texts stand between start and end if `ends`."""
    ends = more.pop("ends", False)
    pieces = [*ADDED, *PROMPT.split(), *WORDS]
    made = Tokenizer(models.WordLevel({p: i for i, p in enumerate(pieces)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if ends:
        pair = [("<s>", START), ("</s>", END)]
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A $B </s>", special_tokens=pair
        )
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=list(ADDED[4:]),
        **more,
    )


VOCABULARY = len(ADDED) + len(PROMPT.split()) + len(WORDS)
IDS = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "bos_token_id": START, "eos_token_id": END}
LLAMA = {**TEXT, **IDS, "num_key_value_heads": 1, "head_dim": 8}
SQUARE = {"height": SIZE, "width": SIZE}


def clip() -> Any:
    return tf.CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=SQUARE)


def save(folder: Path, model: Any, *parts: Any, **settings: Any) -> None:
    """As on the hub: the model, its parts, and what its processor must know."""
    if model.can_generate():  # words only, and some
        model.generation_config.suppress_tokens = [i for i in range(len(ADDED)) if i != END]
        model.generation_config.min_new_tokens = 2
    model.save_pretrained(folder)
    for part in parts:
        part.save_pretrained(folder)
    if settings:
        (folder / "processor_config.json").write_text(json.dumps(settings))


def blip(folder: Path) -> None:
    ids = {**IDS, "sep_token_id": END}
    config = tf.BlipConfig(
        text_config={**TEXT, **ids, "encoder_hidden_size": 16, "max_position_embeddings": 99},
        vision_config=VIT,
        projection_dim=8,
    )
    images = tf.BlipImageProcessorPil(size=SQUARE)
    save(
        folder,
        tf.BlipForConditionalGeneration(config),
        images,
        tokenizer(ends=True, cls_token="<s>"),
    )


def queries(config: type, model: type, language: Any) -> Callable[[Path], None]:
    """BLIP-2 and InstructBLIP: a querying transformer between a tower and a language model."""

    def build(folder: Path) -> None:
        former = {**TEXT, "vocab_size": VOCABULARY, "encoder_hidden_size": 16}
        made = config(
            vision_config=VIT,
            qformer_config=former,
            text_config=language.to_dict(),
            num_query_tokens=3,
            image_token_index=IMAGE,
        )
        images = tf.BlipImageProcessorPil(size=SQUARE)
        save(folder, model(made), images, tokenizer(ends=True), num_query_tokens=3)
        tokenizer(ends=True).save_pretrained(folder / "qformer_tokenizer")

    return build


def opt() -> Any:
    width = {"ffn_dim": 32, "word_embed_proj_dim": 16, "init_std": 0.5}
    return tf.OPTConfig(**TEXT, **IDS, **width, max_position_embeddings=128)


def t5() -> Any:
    return tf.T5Config(
        vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
        pad_token_id=PAD, eos_token_id=END, decoder_start_token_id=PAD, initializer_factor=5.0,
    )  # fmt: skip


def git(folder: Path) -> None:
    config = tf.GitConfig(vision_config=VIT, **TEXT, **IDS, max_position_embeddings=128)
    save(folder, tf.GitForCausalLM(config), clip(), tokenizer(ends=True, cls_token="<s>"))


def vit_gpt2(folder: Path) -> None:
    gpt2 = tf.GPT2Config(
        n_embd=16, n_layer=1, n_head=2, n_positions=128, add_cross_attention=True,
        is_decoder=True, initializer_range=0.5, **IDS,
    )  # fmt: skip
    config = tf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(tf.ViTConfig(**VIT), gpt2)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = START, PAD, END
    model = tf.VisionEncoderDecoderModel(config)
    model.generation_config.update(decoder_start_token_id=START, pad_token_id=PAD, eos_token_id=END)
    save(folder, model, tf.ViTImageProcessorPil(size=SQUARE), tokenizer())


def florence2(folder: Path) -> None:
    bart = tf.BartConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, init_std=0.5,
        max_position_embeddings=128, decoder_start_token_id=END, forced_eos_token_id=None, **IDS,
    )  # fmt: skip
    davit = {
        "embed_dim": (8, 16), "depths": (1, 1), "num_heads": (2, 2), "num_groups": (2, 2),
        "patch_size": (7, 3), "patch_stride": (4, 2), "patch_padding": (3, 1),
        "patch_prenorm": (False, True), "window_size": 2, "projection_dim": 16, "drop_path_rate": 0,
        "max_position_embeddings": 4, "max_temporal_embeddings": 4,
    }  # fmt: skip
    config = tf.Florence2Config(
        text_config=bart.to_dict(),
        vision_config=davit,
        image_token_id=IMAGE,
        is_encoder_decoder=True,
    )
    images = clip()
    images.image_seq_length = 5  # 2 x 2 places and their mean
    spelled = tokenizer(extra_special_tokens={"image_token": "<image>"})
    save(folder, tf.Florence2ForConditionalGeneration(config), images, spelled)


def idefics3(config: type, model: type, images: type) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        made = config(
            text_config={"model_type": "llama", **LLAMA},
            vision_config=VIT,
            image_token_id=IMAGE,
            scale_factor=2,
            pad_token_id=PAD,
        )
        side = {"longest_edge": SIZE}
        split = images(size={"longest_edge": 2 * SIZE}, max_image_size=side)
        save(folder, model(made), split, tokenizer(), image_seq_len=1)

    return build


def llava(folder: Path) -> None:
    config = tf.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **VIT},
        text_config={"model_type": "llama", **LLAMA},
        image_token_index=IMAGE,
    )
    config.vision_feature_layer = -1
    more = {"patch_size": PATCH, "num_additional_image_tokens": 1}
    more["vision_feature_select_strategy"] = "default"  # type: ignore[assignment]
    save(folder, tf.LlavaForConditionalGeneration(config), clip(), tokenizer(), **more)


def llava_onevision(folder: Path) -> None:
    grid = [[SIZE, 2 * SIZE], [2 * SIZE, SIZE]]
    config = tf.LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", **VIT},
        text_config={"model_type": "qwen2", **LLAMA},
        image_token_index=IMAGE,
        image_grid_pinpoints=grid,
        vision_feature_layer=-1,
    )
    images = tf.LlavaOnevisionImageProcessorPil(size=SQUARE, image_grid_pinpoints=grid)
    more = {"num_image_tokens": 4, "vision_feature_select_strategy": "full"}
    save(folder, tf.LlavaOnevisionForConditionalGeneration(config), images, tokenizer(), **more)


def qwen(config: type, model: type, vision: dict[str, Any]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
        made = config(
            text_config={**LLAMA, "rope_parameters": rope},
            vision_config={**vision, "depth": 1, "num_heads": 2, "patch_size": 4},
            image_token_id=ADDED.index("<|image_pad|>"),
            video_token_id=ADDED.index("<|video_pad|>"),
            vision_start_token_id=ADDED.index("<|vision_start|>"),
            vision_end_token_id=ADDED.index("<|vision_end|>"),
        )
        edges = {"shortest_edge": 64, "longest_edge": 1024}
        images = tf.Qwen2VLImageProcessorPil(patch_size=4, size=edges)
        save(folder, model(made), images, tokenizer())

    return build


def paligemma(folder: Path) -> None:
    config = tf.PaliGemmaConfig(
        vision_config={**VIT, "model_type": "siglip_vision_model", "vision_use_head": False},
        text_config={**LLAMA, "model_type": "gemma"},
        projection_dim=16,
        image_token_index=IMAGE,
    )
    config.text_config.vocab_size = VOCABULARY
    images = tf.SiglipImageProcessorPil(size=SQUARE)
    images.image_seq_length = 4
    save(folder, tf.PaliGemmaForConditionalGeneration(config), images, tokenizer())


QWEN2 = {"embed_dim": 16, "hidden_size": 16, "mlp_ratio": 2}
QWEN2_5 = {"hidden_size": 16, "out_hidden_size": 16, "intermediate_size": 32, "window_size": 16}
QWEN2_5 |= {"fullatt_block_indexes": [0]}  # type: ignore[dict-item]
BUILDERS: dict[str, tuple[str, Callable[[Path], None]]] = {  # name -> model_type, how to make one
    "blip": ("blip", blip),
    "blip-2 of OPT": (
        "blip-2",
        queries(tf.Blip2Config, tf.Blip2ForConditionalGeneration, opt()),
    ),
    "blip-2 of T5": ("blip-2", queries(tf.Blip2Config, tf.Blip2ForConditionalGeneration, t5())),
    "instructblip": (
        "instructblip",
        queries(tf.InstructBlipConfig, tf.InstructBlipForConditionalGeneration, t5()),
    ),
    "git": ("git", git),
    "vit-gpt2": ("vision-encoder-decoder", vit_gpt2),
    "florence2": ("florence2", florence2),
    "idefics3": (
        "idefics3",
        idefics3(
            tf.Idefics3Config, tf.Idefics3ForConditionalGeneration, tf.Idefics3ImageProcessorPil
        ),
    ),
    "smolvlm": (
        "smolvlm",
        idefics3(tf.SmolVLMConfig, tf.SmolVLMForConditionalGeneration, tf.SmolVLMImageProcessorPil),
    ),
    "llava": ("llava", llava),
    "llava_onevision": ("llava_onevision", llava_onevision),
    "qwen2_vl": ("qwen2_vl", qwen(tf.Qwen2VLConfig, tf.Qwen2VLForConditionalGeneration, QWEN2)),
    "qwen2_5_vl": (
        "qwen2_5_vl",
        qwen(tf.Qwen2_5_VLConfig, tf.Qwen2_5_VLForConditionalGeneration, QWEN2_5),
    ),
    "paligemma": ("paligemma", paligemma),
}


def noise(seed: int, width: int, height: int) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


PHOTOS = (noise(1, 40, 20), noise(2, 16, 32), noise(3, 24, 24))  # of different shapes


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model, made once."""
    root = tmp_path_factory.mktemp("models")

    def folder(name: str) -> Path:
        path = root / name.replace(" ", "-")
        if not path.exists():
            torch.manual_seed(0)
            BUILDERS[name][1](path)
        return path

    return folder


def load(path: Path, prompt: str | None = None, longest: int = 8) -> Any:
    teacher: Any = load_teacher(f"hf:{path}", Settings(prompt, device="cpu"))
    teacher.longest = longest
    return teacher


def same(ours: Sequence[Scored], theirs: Sequence[Scored]) -> None:
    assert [one.text for one in ours] == [one.text for one in theirs]
    assert [one.score for one in ours] == pytest.approx([one.score for one in theirs], abs=1e-3)


def test_every_family_is_tested() -> None:
    assert {kind for kind, _ in BUILDERS.values()} == set(FAMILIES)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_family(saved: Callable[[str], Path], name: str) -> None:
    """Loaded by path, it says the same of a photo alone as beside others of other shapes."""
    teacher = load(saved(name))
    assert family_of(teacher.model.config.model_type) is FAMILIES[BUILDERS[name][0]]
    assert teacher.model.dtype == torch.float32
    batch = teacher.caption(PHOTOS, 3)
    for scored in batch:
        assert len({one.text for one in scored}) == len(scored) <= 3
        assert all(one.text and -10 < one.score <= 0 for one in scored)
        assert sorted(scored, key=lambda one: -one.score) == scored
    same(teacher.caption([PHOTOS[1]], 3)[0], batch[1])
    assert len({tuple(scored) for scored in batch}) == 3  # it looks at the photo


@pytest.mark.parametrize("name", ["blip", "git", "florence2", "llava", "qwen2_vl", "paligemma"])
def test_the_prompt_matters_and_is_not_in_the_answer(
    saved: Callable[[str], Path], name: str
) -> None:
    usual, asked = load(saved(name), ""), load(saved(name), PROMPT)
    assert asked.name == f"hf:{saved(name)} asked {PROMPT!r}"  # so that labels are not mixed
    spoken = asked.caption(PHOTOS, 1)
    assert spoken != usual.caption(PHOTOS, 1)
    for scored in spoken:
        assert all(PROMPT not in one.text and len(one.text.split()) <= 8 for one in scored)


def test_a_llava_with_fewer_visual_tokens(saved: Callable[[str], Path]) -> None:
    merging = Settings(device="cpu", merge=0.5)
    teacher: Any = load_teacher(f"hf:{saved('llava')}", merging)
    teacher.longest = 8
    assert teacher.name == f"hf:{saved('llava')} merged to 0.5"
    spoken = teacher.caption(PHOTOS, 2)
    assert all(scored and scored[0].text for scored in spoken)
    same(teacher.caption([PHOTOS[1]], 2)[0], spoken[1])
    with pytest.raises(OptionError, match="--merge is for llava models, not blip"):
        load_teacher(f"hf:{saved('blip')}", merging)


def test_a_score_is_the_mean_log_probability_of_a_token(saved: Callable[[str], Path]) -> None:
    teacher = load(saved("vit-gpt2"))
    (best, *_), *_ = teacher.caption(PHOTOS[:1], 2)
    ids = teacher.processor.tokenizer(best.text, add_special_tokens=False)["input_ids"]
    ids += [END] if len(ids) < 8 else []
    pixels = teacher.processor.image_processor(list(PHOTOS[:1]), return_tensors="pt")
    with torch.no_grad():
        seen = torch.tensor([[START, *ids[:-1]]])
        logits = teacher.model(pixel_values=pixels["pixel_values"], decoder_input_ids=seen).logits
    chosen = logits[0].log_softmax(-1)[range(len(ids)), ids]
    assert best.score == pytest.approx(float(chosen.mean()), abs=1e-4)
    assert math.isfinite(best.score)


def test_a_models_own_chat_template_is_used(saved: Callable[[str], Path], tmp_path: Path) -> None:
    teacher = load(saved("llava"))
    assert teacher.family._text(teacher.processor, "what") == "USER: <image>\nwhat ASSISTANT:"
    template = (
        "{% for m in messages %}{% for c in m.content %}"
        "{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}"
        "{% endfor %}{% endfor %}{% if add_generation_prompt %} cat{% endif %}"
    )
    teacher.processor.save_pretrained(tmp_path)
    teacher.model.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template)
    templated = load(tmp_path)
    assert templated.family._text(templated.processor, "what") == "<image>what cat"
    assert templated.caption(PHOTOS, 1) != teacher.caption(PHOTOS, 1)


def test_the_dtype_is_what_was_asked_for(saved: Callable[[str], Path]) -> None:
    teacher: Teacher | Any = load_teacher(f"hf:{saved('blip')}", Settings(dtype="bf16"))
    assert teacher.model.dtype == torch.bfloat16
    teacher.longest = 4
    assert any(teacher.caption(PHOTOS, 2))


def test_what_cannot_be_a_teacher(saved: Callable[[str], Path], tmp_path: Path) -> None:
    bert = tf.BertConfig(**TEXT, vocab_size=9)
    tf.BertModel(bert).save_pretrained(tmp_path / "bert")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    for path, message, kind in (
        (tmp_path / "bert", "'bert' models do not make text of images.*blip", OptionError),
        (tmp_path / "damaged", "damaged: cannot be loaded", DataError),
        (tmp_path / "gone", "gone: no such folder", DataError),
    ):
        with pytest.raises(kind, match=message) as caught:
            load_teacher(f"hf:{path}")
        assert "\n" not in str(caught.value)
    with pytest.raises(OptionError, match="take no prompt"):
        load(saved("vit-gpt2"), PROMPT).caption(PHOTOS, 1)
    with pytest.raises(NanocapError, match="device 'moon'"):
        load_teacher(f"hf:{saved('vit-gpt2')}", Settings(device="moon"))


def test_the_command_labels_with_a_model(
    saved: Callable[[str], Path], tmp_path: Path, shards: Callable[[dict[str, Image.Image]], str]
) -> None:
    pattern = shards({f"p{index}": photo for index, photo in enumerate(PHOTOS)})
    arguments = ["--teacher", f"hf:{saved('git')}", "--images", pattern, "--captions", "2"]
    arguments += ["--prompt", "a cat", "--device", "cpu", "--dtype", "fp32", "--json"]
    result = CliRunner().invoke(group, ["label", *arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert len(PhotoShards([str(tmp_path / "out" / "*.tar")])) == 3
