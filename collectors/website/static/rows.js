// Reads rows of the version's own Parquet by ranges, for question.js. esbuild bundles this file with hyparquet.
import { decompress } from "fzstd";
import { parquetMetadataAsync, parquetReadObjects, rowIndex } from "hyparquet";

const compressors = { ZSTD: (bytes, length) => decompress(bytes, new Uint8Array(length)) };
const opened = new Map();

function ranged([address, byteLength]) {
  return {
    byteLength,
    async slice(start, end = byteLength) {
      const answer = await fetch(address, { headers: { Range: `bytes=${start}-${end - 1}` } });
      if (answer.status === 404) throw new Error("The version's files are not beside these pages: put them, or a link, at version/.");
      if (answer.status !== 206) {
        await answer.body?.cancel();
        throw new Error(`The server answers no ranges of a file (status ${answer.status}): publish.py site … --serve does.`);
      }
      const bytes = await answer.arrayBuffer();
      if (bytes.byteLength !== end - start || !answer.headers.get("Content-Range")?.endsWith(`/${byteLength}`)) throw new Error("The files at version/ are not those of these pages.");
      return bytes;
    },
  };
}

// `object` is address, bytes, and bytes of its footer.
function open(object) {
  const [address, , initialFetchSize] = object;
  if (!opened.has(address)) {
    const file = ranged(object), metadata = parquetMetadataAsync(file, { initialFetchSize });
    metadata.catch(() => opened.delete(address));
    opened.set(address, metadata.then(metadata => ({ file, metadata, compressors, useOffsetIndex: true })));
  }
  return opened.get(address);
}

window.siteReader = {
  // The rows that fit, each with its number in the file as `at`.
  async find(object, columns, filter) {
    const rows = await parquetReadObjects({ ...(await open(object)), columns, filter, includeRowIndex: true });
    return rows.map(row => ({ ...row, at: row[rowIndex] }));
  },
  async read(object, columns, rowStart, rowEnd) {
    return parquetReadObjects({ ...(await open(object)), columns, rowStart, rowEnd });
  },
};
