"""Ghost batch norm by the definition: the normalised formula and one running update per ghost, in
order.
"""

import torch


def normalise(x, weight, bias, mean, variance, ghost, momentum=0.1, eps=1e-5):
    """(output, running mean, running variance) of consecutive ghosts of `ghost` examples."""
    parts = []
    for part in x.split(ghost):
        columns = part.transpose(0, 1).flatten(1)  # [feature, values]
        m, v = columns.mean(1), columns.var(1, unbiased=False)
        shape = (1, -1) + (1,) * (x.dim() - 2)
        parts.append(
            (part - m.view(shape)) / (v.view(shape) + eps).sqrt() * weight.view(shape)
            + bias.view(shape)
        )
        mean = (1 - momentum) * mean + momentum * m.detach()
        variance = (1 - momentum) * variance + momentum * columns.var(1, unbiased=True).detach()
    return torch.cat(parts), mean, variance
