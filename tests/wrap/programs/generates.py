"""Generation with a Llama made from a configuration."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def main():
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
    )
    model = LlamaForCausalLM(config).eval()
    for _ in range(10):
        ids = torch.randint(0, 128, (2, 8))
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=16,
            min_new_tokens=16,
            do_sample=False,
            pad_token_id=0,
        )


if __name__ == "__main__":
    main()
