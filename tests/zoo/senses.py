"""Vision and speech models of `transformers`, tiny and random."""

import torch
import transformers as t

D = 16
_IMAGE = {"image_size": 16, "patch_size": 8, "num_channels": 3}
_LAYERS = {
    "hidden_size": D,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
_SPEECH = _LAYERS | {
    "conv_dim": (8, 8),
    "conv_kernel": (4, 4),
    "conv_stride": (2, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 12,
    "apply_spec_augment": False,
}

VISION = {
    "ViT": ("ViT", _IMAGE | _LAYERS | {"hidden_dropout_prob": 0.1}),
    "BEiT": ("Beit", _IMAGE | _LAYERS | {"use_relative_position_bias": True}),
    "DINOv2": ("Dinov2", _IMAGE | _LAYERS | {"mlp_ratio": 2}),
    "Swin": (
        "Swin",
        {
            "image_size": 16,
            "patch_size": 2,
            "embed_dim": 8,
            "depths": [2, 2],
            "num_heads": [2, 2],
            "window_size": 4,
        },
    ),
    "ConvNeXt": (
        "ConvNext",
        {"hidden_sizes": [8, 8], "depths": [1, 1], "num_stages": 2},
    ),
    "SegFormer": (
        "Segformer",
        {
            "num_encoder_blocks": 2,
            "depths": [1, 1],
            "sr_ratios": [2, 1],
            "hidden_sizes": [8, 8],
            "patch_sizes": [3, 3],
            "strides": [2, 2],
            "num_attention_heads": [1, 2],
            "mlp_ratios": [2, 2],
        },
    ),
    "PoolFormer": (
        "PoolFormer",
        {
            "num_encoder_blocks": 2,
            "depths": [1, 1],
            "hidden_sizes": [8, 8],
            "patch_sizes": [3, 3],
            "strides": [2, 2],
            "padding": [1, 1],
        },
    ),
    "ResNet": (
        "ResNet",
        {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]},
    ),
    "MobileNetV2": ("MobileNetV2", {"depth_multiplier": 0.25, "image_size": 32}),
}
SPEECH = {
    "wav2vec 2.0": ("Wav2Vec2", "CTC", _SPEECH | {"layerdrop": 0.0}),
    "HuBERT": ("Hubert", "CTC", _SPEECH | {"layerdrop": 0.0}),
    "Audio Spectrogram Transformer": (
        "AST",
        "AudioClassification",
        _LAYERS | {"patch_size": 4, "max_length": 16, "num_mel_bins": 8},
    ),
    "Whisper": (
        "Whisper",
        "SpeechSeq2Seq",
        {
            "vocab_size": 31,
            "d_model": D,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
            "num_mel_bins": 4,
            "max_source_positions": 8,
            "max_target_positions": 8,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
    ),
}


def vision(name):
    config, sizes = VISION[name]
    config = getattr(t, f"{config}Config")(**sizes)
    model = t.AutoModelForImageClassification.from_config(config)
    side = 32 if name in ("ResNet", "MobileNetV2") else 16
    return model, lambda n: {"pixel_values": torch.randn(n, 3, side, side)}


def speech(name):
    config, head, sizes = SPEECH[name]
    config = getattr(t, f"{config}Config")(**sizes)
    if hasattr(config, "use_cache"):
        config.use_cache = False
    kinds = {
        "CTC": "AutoModelForCTC",
        "AudioClassification": "AutoModelForAudioClassification",
        "SpeechSeq2Seq": "AutoModelForSpeechSeq2Seq",
    }
    model = getattr(t, kinds[head]).from_config(config)

    def batch(n):
        if head == "CTC":
            return {"input_values": torch.randn(n, 40)}
        if name == "Whisper":
            return {
                "input_features": torch.randn(n, 4, 16),
                "decoder_input_ids": torch.randint(3, 31, (n, 4)),
            }
        return {"input_values": torch.randn(n, 16, 8)}

    return model, batch
