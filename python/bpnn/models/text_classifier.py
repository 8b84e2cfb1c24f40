"""Texts to classes: a table of tokens, a recurrent network that reads both ways, the largest values over time, a linear layer."""
import bpnn
from bpnn import nn
from bpnn.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class TextClassifier(nn.Module):
    """Logits (B, classes) of texts given as numbers of tokens (B, T), filled up with `padding_idx`, and their lengths (B,).

        x = dropout(embedding[tokens])                        (B, T, embedding_dim)
        h = LSTM or GRU of x, forward and backward            (B, T, 2 hidden_size)
        logits = linear(dropout(max over time of h))          (B, classes)

    Lengths are 1 or more; what lies behind a text's end is not read. The table starts as N(0, 0.1²).

    Args:
        vocabulary: how many tokens there are.
        cell: "lstm" or "gru"; num_layers: of it.
        dropout: share of the values of embeddings, between layers, and of the features that is dropped in training.
    """

    def __init__(
        self, vocabulary, classes, embedding_dim=128, hidden_size=128, num_layers=1, cell="lstm", dropout=0.5, padding_idx=0
    ):
        super().__init__()
        kinds = {"lstm": nn.LSTM, "gru": nn.GRU}
        if cell not in kinds:
            raise ValueError(f"cell: expected 'lstm' or 'gru', got {cell!r}")
        self.embedding = nn.Embedding(vocabulary, embedding_dim, padding_idx)
        with bpnn.no_grad():
            self.embedding.weight.mul_(0.1)
        between = dropout if num_layers > 1 else 0.0
        self.rnn = kinds[cell](embedding_dim, hidden_size, num_layers, batch_first=True, dropout=between, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(2 * hidden_size, classes)

    def forward(self, tokens, lengths):
        """The logits of a batch."""
        x = self.dropout(self.embedding(tokens))
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        h, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, padding_value=float("-inf"))
        return self.linear(self.dropout(h.amax(1)))
