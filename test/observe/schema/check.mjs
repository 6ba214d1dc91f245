// Holds the dashboard to the types of @grafana/schema, which Grafana generates from its own schema: a field that it doesn't
// know, one that is missing, or a value of another kind is an error of the compiler's.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const dashboard = JSON.parse(readFileSync(process.argv[2] ?? join(here, '../../../config/grafana/bulkjob.json'), 'utf8'));
const work = mkdtempSync(join(here, 'node_modules', '.check-'));

// JSON has the values of enumerations, not their names: in a copy of the types, they are unions of their values.
function openEnumerations() {
  const types = join(work, 'types');
  cpSync(join(here, 'node_modules/@grafana/schema/dist/types'), types, { recursive: true });
  for (const name of readdirSync(types, { recursive: true }).filter((name) => name.endsWith('.d.ts'))) {
    const path = join(types, name);
    writeFileSync(path, readFileSync(path, 'utf8')
      .replace(/export declare enum (\w+) \{([^}]*)\}/g, (_, name, body) => {
        const values = body.replace(/\/\*[^]*?\*\//g, '').split(',').map((member) => member.split('=')[1]?.trim()).filter(Boolean);
        return `export type ${name} = ${values.join(' | ')}`;
      })
      .replace(/from '@grafana\/schema'/g, `from '${join(types, 'index')}'`));
  }
}

// A literal of each part, so that the compiler looks for fields too many as well.
function literals() {
  const text = ["import type { Dashboard } from './types/raw/dashboard/x/types.gen';"];
  for (const kind of ['timeseries', 'stat']) {
    text.push(`import type * as ${kind} from './types/raw/composable/${kind}/panelcfg/x/types.gen';`);
  }
  text.push(`export const dashboard: Dashboard = ${JSON.stringify(dashboard, null, 1)};`);
  for (const panel of dashboard.panels.filter((panel) => panel.type !== 'row')) {
    text.push(`export const options${panel.id}: Partial<${panel.type}.Options> = ${JSON.stringify(panel.options)};`);
    if (panel.type === 'timeseries') {
      text.push(`export const field${panel.id}: timeseries.FieldConfig = ${JSON.stringify(panel.fieldConfig.defaults.custom)};`);
    }
  }
  writeFileSync(join(work, 'dashboard.ts'), text.join('\n'));
}

try {
  openEnumerations();
  literals();
  execFileSync(process.execPath, [
    join(here, 'node_modules/typescript/bin/tsc'), '--noEmit', '--strict', '--skipLibCheck',
    '--moduleResolution', 'bundler', '--module', 'esnext', '--target', 'es2022', join(work, 'dashboard.ts'),
  ], { stdio: 'inherit' });
  console.log(`${dashboard.panels.length} panels are as Grafana's schema has them`);
} catch {
  process.exitCode = 1;
} finally {
  rmSync(work, { recursive: true, force: true });
}
