// WebP files upright: Chromium ignores their EXIF orientation, which it applies to JPEG and
// PNG files and the server applies to all three.

// Orientation -> rotation of the raw pixels, as (a, b, c, d) of a canvas transform.
const TURNS = {
  2: [-1, 0, 0, 1], 3: [-1, 0, 0, -1], 4: [1, 0, 0, -1],
  5: [0, 1, 1, 0], 6: [0, 1, -1, 0], 7: [0, -1, -1, 0], 8: [0, -1, 1, 0],
};

/** Returns an upright image: the file itself, or a rotated copy of a WebP. */
export async function upright(bytes, type) {
  const unchanged = new Blob([bytes], { type });
  const chunk = exifChunk(bytes);
  const turn = chunk && TURNS[orientation(bytes, chunk + 8)];
  if (!turn) return unchanged;
  // Without its EXIF chunk, no browser rotates the file a second time.
  const raw = new Uint8Array(bytes.slice(0));
  raw.set([0x20, 0x20, 0x20, 0x20], chunk);
  try {
    return await turned(await createImageBitmap(new Blob([raw], { type })), turn);
  } catch {
    return unchanged; // damaged: the server reports it
  }
}

function turned(bitmap, [a, b, c, d]) {
  const { width, height } = bitmap;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = a ? [width, height] : [height, width];
  const context = canvas.getContext("2d");
  // Moved back to the origin of the canvas.
  const [right, down] = [Math.min(0, a * width) + Math.min(0, c * height),
    Math.min(0, b * width) + Math.min(0, d * height)];
  context.setTransform(a, b, c, d, -right, -down);
  context.drawImage(bitmap, 0, 0);
  return new Promise((done) => canvas.toBlob(done));
}

const wordAt = (bytes, at) => String.fromCharCode(...new Uint8Array(bytes, at, 4));

/** Returns the start of the EXIF chunk of a WebP file, or 0 without one. */
function exifChunk(bytes) {
  const { byteLength } = bytes;
  if (byteLength < 12 || wordAt(bytes, 0) !== "RIFF" || wordAt(bytes, 8) !== "WEBP") return 0;
  const view = new DataView(bytes);
  for (let at = 12; at + 8 <= byteLength;) {
    if (wordAt(bytes, at) === "EXIF") return at;
    const size = view.getUint32(at + 4, true);
    at += 8 + size + (size % 2);
  }
  return 0;
}

/** Returns the orientation in the EXIF block at `start`; 1 if it is damaged. */
function orientation(bytes, start) {
  const view = new DataView(bytes);
  try {
    const tiff = wordAt(bytes, start) === "Exif" ? start + 6 : start;
    const little = view.getUint16(tiff) === 0x4949; // "II"
    const entries = tiff + view.getUint32(tiff + 4, little);
    for (let i = 0; i < view.getUint16(entries, little); i++) {
      const entry = entries + 2 + 12 * i;
      if (view.getUint16(entry, little) === 0x0112) return view.getUint16(entry + 8, little);
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // beyond the end of the file
  }
  return 1;
}
