"""The fields of POST /v1/batches."""

from __future__ import annotations

from gateway.batch.files import BATCH_LIFETIME_S, HOUR_S
from gateway.batch.service import ENDPOINTS
from gateway.protocol.parameters import Parameter, index
from gateway.protocol.values import Integer, Mapping, OneOf, Record, Text

BATCH = index(
    [
        Parameter(
            "input_file_id",
            "An uploaded file of purpose `batch`.",
            Text(128, 1),
            required=True,
        ),
        Parameter(
            "endpoint", "The path that every line names as `url`.", OneOf(ENDPOINTS), required=True
        ),
        Parameter("completion_window", "Always `24h`.", OneOf(("24h",)), required=True),
        Parameter("metadata", "Free text, given back.", Mapping(Text(512), 16, longest_key=64)),
        Parameter(
            "output_expires_after",
            "How long the output files are kept; 30 days otherwise.",
            Record(
                {"anchor": OneOf(("created_at",)), "seconds": Integer(HOUR_S, BATCH_LIFETIME_S)},
                required=("anchor", "seconds"),
            ),
        ),
    ]
)
