"""Tables for SCTP's checksum in the fast path: what 2^k zero bytes behind it make of a CRC32c (RFC 9260, appendix A)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from appliance.datapath.layout import CRC_SHIFTS

_POLYNOMIAL = 0x82F63B78


def _after_zero_byte(crc: int) -> int:
    for _ in range(8):
        crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc


def _apply(matrix: list[int], value: int) -> int:
    """A linear map of 32 bits, given by what it makes of each single bit."""
    result = 0
    for image in matrix:
        if value & 1:
            result ^= image
        value >>= 1
    return result


def shift_tables() -> Iterator[bytes]:
    """struct crc_shift for k = 0 … CRC_SHIFTS - 1: by linearity, the xor of one entry for each byte of the CRC, lowest first."""
    matrix = [_after_zero_byte(1 << bit) for bit in range(32)]
    for _ in range(CRC_SHIFTS):
        entries: list[int] = []
        for byte in range(4):
            table = [0] * 256
            for value in range(1, 256):
                low = value & -value
                table[value] = table[value ^ low] ^ matrix[8 * byte + low.bit_length() - 1]
            entries.extend(table)
        yield struct.pack("=1024I", *entries)
        matrix = [_apply(matrix, image) for image in matrix]
