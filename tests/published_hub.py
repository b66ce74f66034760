"""What do the hub repositories of the published studies hold, at a size for tests?

Models of the same architecture with random weights: the base ties its embeddings, the distilled model is the base
moved, the RL model is the distilled one moved a little, stored in float32 and in several files. Vocabularies are
padded beyond the tokenizer's, as the real ones are. Two tokenizers share all ordinary ids and differ in what the ids
after them are called: Qwen's control tokens, or DeepSeek's. Templates, classes and flags are those of the real ones,
as far as they are used.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pandas as pd
import torch
import yaml
from hub_cache import put
from tokenizers import AddedToken, Tokenizer
from transformers import LlamaTokenizerFast, Qwen2Config, Qwen2ForCausalLM, Qwen2TokenizerFast

from reasondiff.text.bpe import tokenizer_texts, train_tokenizer
from reasondiff.text.corpus import openr1_rows

ORDINARY = 413
"""Ids of bytes and merges, before the control tokens."""
PADDED = 448
"""Rows of the embeddings."""
QWEN = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>",
)  # fmt: skip
DEEPSEEK = (
    "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>", "<|EOT|>", "<think>",
    "</think>",
)  # fmt: skip
QWEN_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n"
    "Please reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DEEPSEEK_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}<｜User｜>{{ message['content'] }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "<｜Assistant｜>{{ content }}<｜end▁of▁sentence｜>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>%s{% endif %}"
)


def tokenizers() -> dict[str, object]:
    """{owner of the template: tokenizer}: qwen, deepseek, and agentica, whose template does not open the think tag."""
    found = {
        "qwen": Qwen2TokenizerFast(
            tokenizer_object=_with_control_tokens(QWEN, special=QWEN[:3]), bos_token=None, eos_token=QWEN[0],
            pad_token=QWEN[0], unk_token=None,
        )
    }  # fmt: skip
    found["qwen"].chat_template = QWEN_TEMPLATE
    for name, opening in (("deepseek", "<think>\n"), ("agentica", "")):
        found[name] = LlamaTokenizerFast(
            tokenizer_object=_with_control_tokens(DEEPSEEK, special=(DEEPSEEK[0], DEEPSEEK[3])), bos_token=DEEPSEEK[3],
            eos_token=DEEPSEEK[0], pad_token=DEEPSEEK[0], unk_token=None, add_bos_token=True, legacy=True,
        )  # fmt: skip
        found[name].chat_template = DEEPSEEK_TEMPLATE.replace("%s", opening)
    return found


def _with_control_tokens(names: tuple[str, ...], special: tuple[str, ...]) -> Tokenizer:
    plain = json.loads(train_tokenizer(tokenizer_texts(0, 600), ORDINARY + 7).backend_tokenizer.to_str())
    tokenizer = Tokenizer.from_str(json.dumps({**plain, "added_tokens": []}))
    tokenizer.add_tokens([AddedToken(name, special=name in special, normalized=False) for name in names])
    return tokenizer


def models(layers: int) -> dict[str, Qwen2ForCausalLM]:
    """{name: model} of base, distill and rl."""
    sizes = {
        "vocab_size": PADDED, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers,
        "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.2, "rope_theta": 10000.0,
    }  # fmt: skip
    torch.manual_seed(0)
    base = Qwen2ForCausalLM(
        Qwen2Config(**sizes, tie_word_embeddings=True, max_position_embeddings=4096, eos_token_id=ORDINARY)
    )
    found = {"base": base}
    for name, parent, moved in (("distill", "base", 0.05), ("rl", "distill", 0.005)):
        config = Qwen2Config(
            **sizes, tie_word_embeddings=False, max_position_embeddings=131072, bos_token_id=ORDINARY + 3,
            eos_token_id=ORDINARY,
        )  # fmt: skip
        found[name] = Qwen2ForCausalLM(config)
        weights = {**found[parent].state_dict()}
        weights["lm_head.weight"] = weights["lm_head.weight"].clone()
        found[name].load_state_dict({key: value + moved * torch.randn_like(value) for key, value in weights.items()})
    return found


def fill(home: Path, layers: int) -> dict[str, str]:
    """Fills the cache of the hub with all that the published studies name; {repository: commit}."""
    tokenizer, model = tokenizers(), models(layers)
    commits = {}
    for repo, name, owner, dtype, largest in (
        ("Qwen/Qwen2.5-Math-1.5B", "base", "qwen", torch.bfloat16, "5GB"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "distill", "deepseek", torch.bfloat16, "5GB"),
        ("agentica-org/DeepScaleR-1.5B-Preview", "rl", "agentica", torch.float32, "50KB"),
    ):
        with tempfile.TemporaryDirectory() as folder:
            model[name].to(dtype).save_pretrained(folder, max_shard_size=largest)
            tokenizer[owner].save_pretrained(folder)
            commits[repo] = put(home, "model", repo, Path(folder))
    rows = pd.DataFrame(
        openr1_rows(n=360, generations=2, steps_weights={1: 0.6, 2: 0.4}, wrong_share=0.1, truncated_share=0.1, seed=9)
    ).drop(columns="family", errors="ignore")
    web = pd.DataFrame({"text": [f"Page {i} tells of the number {i * i} and of {i % 7} hats." for i in range(900)]})
    for repo, subsets in (
        ("open-r1/OpenR1-Math-220k", {"all": rows, "default": rows.iloc[:200], "extended": rows.iloc[200:]}),
        ("Skylion007/openwebtext", {"plain_text": web}),
    ):
        with tempfile.TemporaryDirectory() as folder:
            commits[repo] = put(home, "dataset", repo, _data_set(Path(folder), subsets))
    return commits


def _data_set(folder: Path, subsets: dict[str, pd.DataFrame]) -> Path:
    """A data set as the hub has it: Parquet files, and a card that says which subset they make."""
    listed = []
    for name, frame in subsets.items():
        (folder / name).mkdir()
        for part in range(2):
            frame.iloc[part::2].to_parquet(folder / name / f"train-0000{part}-of-00002.parquet")
        listed.append({"config_name": name, "data_files": [{"split": "train", "path": f"{name}/train-*"}]})
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': listed})}---\n# Rows for tests\n")
    return folder
