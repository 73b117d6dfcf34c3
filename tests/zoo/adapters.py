"""Adapters of PEFT on a tiny Llama, of which only what they add is trained."""

import peft
import torch

from . import language

_ON = {"target_modules": ["q_proj", "v_proj", "down_proj"]}
_LOW = {"r": 4, **_ON}
_LM = {"task_type": "CAUSAL_LM"}
_VIRTUAL = {"num_virtual_tokens": 3, **_LM}

KINDS = {
    "LoRA": ("Lora", {**_LOW, "lora_dropout": 0.2}),
    "LoRA, rank-stabilised": ("Lora", {**_LOW, "use_rslora": True}),
    "LoRA, all linear layers": ("Lora", {"r": 4, "target_modules": "all-linear"}),
    "LoRA on embeddings": ("Lora", {"r": 4, "target_modules": ["embed_tokens"]}),
    "LoRA with bias": ("Lora", {**_LOW, "bias": "lora_only", "lora_bias": True}),
    "LoRA and saved modules": ("Lora", {**_LOW, "modules_to_save": ["norm"]}),
    "DoRA": ("Lora", {**_LOW, "use_dora": True}),
    "DoRA with dropout": ("Lora", {**_LOW, "use_dora": True, "lora_dropout": 0.2}),
    "AdaLoRA": ("AdaLora", {**_ON, "init_r": 4, "target_r": 2, "total_step": 10}),
    "LoHa": ("LoHa", _LOW),
    "LoKr": ("LoKr", _LOW),
    "OFT": ("OFT", {"r": 0, "oft_block_size": 4, **_ON}),
    "BOFT": ("BOFT", {"boft_block_size": 4, **_ON}),
    "HRA": ("HRA", _LOW),
    "IA3": ("IA3", {**_ON, "feedforward_modules": ["down_proj"]}),
    "VeRA": ("Vera", {"r": 4, "target_modules": ["q_proj"], "save_projection": True}),
    "FourierFT": ("FourierFT", {"n_frequency": 5, **_ON}),
    "VB-LoRA": ("VBLoRA", {**_LOW, "num_vectors": 8, "vector_length": 4}),
    "Bone / MiSS": ("Miss", _LOW),
    "RandLoRA": ("RandLora", {"r": 4, "target_modules": ["q_proj"]}),
    "C3A": ("C3A", {"block_size": 4, **_ON}),
    "SHiRA": ("Shira", _LOW),
    "RoAd": ("Road", {"group_size": 4, **_ON}),
    "WaveFT": ("WaveFT", {"n_frequency": 5, **_ON}),
    "layer norms": ("LNTuning", {}),
    "trainable tokens": ("TrainableTokens", {"token_indices": list(range(5, 20))}),
    "prompt tuning": ("PromptTuning", _VIRTUAL),
    "prefix tuning": ("PrefixTuning", _VIRTUAL),
    "p-tuning": ("PromptEncoder", {**_VIRTUAL, "encoder_hidden_size": 8}),
    "adaption prompt": (
        "AdaptionPrompt",
        {"adapter_len": 3, "adapter_layers": 1, **_LM},
    ),
}


def adapted(name):
    config, options = KINDS[name]
    model, batch = language.causal("Llama")
    torch.manual_seed(3)
    model = peft.get_peft_model(model, getattr(peft, f"{config}Config")(**options))
    with torch.no_grad():  # many begin at zero, where half of the gradients are
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
    return model, batch
