"""transformers.Trainer on a Llama made from a configuration: nothing is downloaded."""

import sys
import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments


class Tokens(torch.utils.data.Dataset):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        ids = torch.randint(0, 128, (24,), generator=generator)
        return {"input_ids": ids, "labels": ids}


class Told(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        print("update")


def main():
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        attn_implementation="eager",
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            max_steps=int(sys.argv[1]),
            eval_strategy="steps",
            eval_steps=4,
            save_strategy="no",
            report_to=[],
        )
        trainer = Trainer(
            model=LlamaForCausalLM(config),
            args=arguments,
            train_dataset=Tokens(512),
            eval_dataset=Tokens(16),
            callbacks=[Told()],
        )
        trainer.train()


if __name__ == "__main__":
    main()
