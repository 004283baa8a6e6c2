"""A network of MONAI's behind the package's contract: its own modules, shown as encoder, decoder and head."""

from collections.abc import Callable

from torch import Tensor, nn

from abdoseg.networks.contract import features_of


class AdaptedNetwork(nn.Module):
    """Encoder, decoder and head made of another package's modules.

    Parameters
    ----------
    encoder, decoder, head
        As :class:`~abdoseg.networks.contract.SegmentationNetwork` says.
    make_head
        ``make_head(out_channels)``: a head with fresh weights.
    divisor
        Sides of the input are multiples of it.
    last_channels, deepest_channels
        Channels of the last and of the deepest features.
    """

    last_stride = 1

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        head: nn.Module,
        make_head: Callable[[int], nn.Module],
        *,
        divisor: int,
        last_channels: int,
        deepest_channels: int,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, head
        self.make_head = make_head
        self.divisor, self.last_channels, self.deepest_channels = divisor, last_channels, deepest_channels

    def new_head(self, out_channels: int) -> nn.Module:
        """Return a head with fresh weights, of the same kind."""
        return self.make_head(out_channels)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last features ``(B, last_channels, X, Y, Z)`` and the deepest.

        Raises
        ------
        ValueError
            If a side is not a multiple of the divisor, or all are the divisor.
        """
        return features_of(self, x)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(B, out, X, Y, Z)`` of images ``(B, in, X, Y, Z)``; errors as :meth:`features`."""
        last, _ = self.features(x)
        logits: Tensor = self.head(last)
        return logits
