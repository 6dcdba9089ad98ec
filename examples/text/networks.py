"""The two networks: a pretrained encoder that is fine-tuned, and a small student."""

import torch
from torch import Tensor, nn

PAD = 0
"""The number of the padding token, BERT's."""


def lengths(tokens: Tensor) -> Tensor:
    """Return how many tokens each row of (N, L) has before its padding; at least 1."""
    return (tokens != PAD).sum(1).clamp(min=1)


class Encoder(nn.Module):
    """A transformer's mean over the tokens, and a linear layer.

    A batch is run in parts of similar length, so that little is computed for padding; the logits
    are the same.

    Args:
        backbone: called with `input_ids` and `attention_mask`, returns `.last_hidden_state`
            (N, L, W), as Hugging Face's models do. Its embeddings are not trained.
        width: W.
        classes: C.
        part: rows that are run at once.
    """

    def __init__(self, backbone: nn.Module, width: int, classes: int = 2, part: int = 16) -> None:
        super().__init__()
        # from_pretrained() gives it in evaluation mode, and Lightning would leave it there.
        self.backbone, self.part = backbone.train(), part
        # Half of the parameters, most of them of words that the data do not have.
        backbone.embeddings.requires_grad_(False)
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(width, classes))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (N, C) for tokens (N, L)."""
        order = lengths(tokens).argsort()
        logits = torch.cat([self._run(tokens[rows]) for rows in order.split(self.part)])
        return logits[order.argsort()]

    def _run(self, tokens: Tensor) -> Tensor:
        tokens = tokens[:, : int(lengths(tokens).max())].long()
        mask = (tokens != PAD).long()
        states = self.backbone(input_ids=tokens, attention_mask=mask).last_hidden_state
        mean = (states * mask[..., None]).sum(1) / lengths(tokens)[:, None]
        return self.head(mean)


class Student(nn.Module):
    """Embeddings, and of these their mean and the largest answers to trigrams.

    The convolution is that of Kim, "Convolutional Neural Networks for Sentence Classification",
    2014 (arXiv:1408.5882), with one width of window.

    Args:
        known: the tokens that get an embedding, ascending; all others share one.
        dimensions: of an embedding.
        trigrams: how many are looked for.
        classes: C.
    """

    def __init__(
        self, known: Tensor, dimensions: int = 32, trigrams: int = 64, classes: int = 2
    ) -> None:
        super().__init__()
        self.register_buffer("known", known[known != PAD].long())
        # 0 is padding and 1 all other tokens.
        self.embed = nn.Embedding(len(self.known) + 2, dimensions, padding_idx=PAD)
        nn.init.normal_(self.embed.weight[PAD + 1 :].data, std=0.1)
        self.trigrams = nn.Conv1d(dimensions, trigrams, 3, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(dimensions + trigrams, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (N, C) for tokens (N, L)."""
        tokens = tokens[:, : int(lengths(tokens).max())].long().contiguous()
        place = torch.searchsorted(self.known, tokens).clamp(max=len(self.known) - 1)
        rows = torch.where(self.known[place] == tokens, place + 2, 1) * (tokens != PAD)
        states = self.embed(rows)
        mean = states.sum(1) / lengths(tokens)[:, None]
        found = self.trigrams(self.dropout(states).transpose(1, 2)).relu()
        # A sentence's answer does not depend on the padding that others give it.
        found = (found * (rows != PAD)[:, None]).amax(2)
        return self.head(self.dropout(torch.cat([mean, found], 1)))
