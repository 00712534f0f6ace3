// Captions photos with transformers.js, offline: node caption.mjs FOLDER PHOTO...
// Prints their texts as one JSON array.
import { basename, dirname, resolve } from 'node:path';
import { env, pipeline } from '@huggingface/transformers';

const [folder, ...photos] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = dirname(resolve(folder));

const captioner = await pipeline('image-to-text', basename(folder), { local_files_only: true });
const texts = [];
for (const photo of photos) {
  const [{ generated_text: text }] = await captioner(photo);
  texts.push(text);
}
console.log(JSON.stringify(texts));
