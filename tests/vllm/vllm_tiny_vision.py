"""A small random Idefics3 in Hugging Face layout: a SigLIP tower in front of a Llama.

Of the families that vLLM serves it is one that needs no torchvision, and one whose processor
turns one placeholder into many tokens of several kinds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from vllm_tiny import EOS, IM_END, MAX_LEN, VOCAB, byte_tokenizer

IMAGE, AROUND, GLOBAL = "<image>", "<fake_token_around_image>", "<global-img>"
SIDE, PATCH, SHRINK, HIDDEN = 56, 14, 2, 64
# Tokens of the model's own per image: the tower's patches, and what stands around them.
PATCHES = (SIDE // PATCH) ** 2 // SHRINK**2
TOKENS_PER_IMAGE = PATCHES + 3
# Lists only, as templates of such checkpoints have it: of a string it would show nothing.
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_vision_model(folder: Path, seed: int = 0) -> Path:
    """Write a complete model folder, its processor included, and return it."""
    import torch
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, LlamaConfig
    from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_tokenizer()
    special = [AROUND, IMAGE, "<end_of_utterance>", GLOBAL]
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
    config = Idefics3Config(
        vision_config=Idefics3VisionConfig(
            hidden_size=HIDDEN,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=SIDE,
            patch_size=PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=VOCAB + 8,
            hidden_size=HIDDEN,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=32,
            max_position_embeddings=MAX_LEN,
            bos_token_id=None,
            eos_token_id=IM_END,
            pad_token_id=EOS,
        ),
        image_token_id=tokenizer.token_to_id(IMAGE),
        scale_factor=SHRINK,
        pad_token_id=EOS,
    )
    torch.manual_seed(seed)
    model = Idefics3ForConditionalGeneration(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0.0, 0.15)
            elif "norm" not in name:
                weight.zero_()
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    pixels = {
        "image_processor_type": "Idefics3ImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"longest_edge": SIDE},
        "do_image_splitting": False,
        "max_image_size": {"longest_edge": SIDE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
        "do_pad": True,
        "resample": 3,
    }
    files: dict[str, dict[str, Any]] = {
        "generation_config.json": {"eos_token_id": [IM_END, EOS]},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
        },
        "preprocessor_config.json": pixels,
        "processor_config.json": {
            "processor_class": "Idefics3Processor",
            "image_seq_len": PATCHES,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder
