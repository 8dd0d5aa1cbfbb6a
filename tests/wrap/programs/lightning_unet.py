"""Lightning's Trainer on a MONAI UNet; devices come from the environment, as torchrun sets it."""

import os
import tempfile

import lightning
import torch
from monai.data import DataLoader, Dataset
from monai.losses import DiceLoss
from monai.networks.nets import UNet


class Segmentation(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = UNet(
            spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 8, 16), strides=(2, 2)
        )
        self.loss_function = DiceLoss(to_onehot_y=True, softmax=True)

    def training_step(self, batch, batch_index):
        loss = self.loss_function(self.net(batch["image"]), batch["label"])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_index):
        self.log("loss", self.loss_function(self.net(batch["image"]), batch["label"]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Told(lightning.Callback):
    def on_train_batch_end(self, trainer, *_):
        print("update")


def examples(number):
    generator = torch.Generator().manual_seed(0)
    return [
        {"image": torch.randn(1, 32, 32, generator=generator), "label": torch.ones(1, 32, 32)}
        for _ in range(number)
    ]


def main():
    size = int(os.environ.get("WORLD_SIZE", "1"))
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=size,
            strategy="ddp" if size > 1 else "auto",
            max_epochs=20,
            logger=False,
            default_root_dir=folder,
            enable_progress_bar=False,
            callbacks=[Told()],
        )
        trainer.fit(
            Segmentation(),
            DataLoader(Dataset(examples(8 * 4 * size)), batch_size=8),
            DataLoader(Dataset(examples(8)), batch_size=8),
        )


if __name__ == "__main__":
    main()
