// The same as code, in several languages.

import { Tab, TabList, TabPanel, Tabs } from "react-aria-components/Tabs";
import { CopyButton } from "./parts";

export function CodeTabs({ texts }: { texts: [language: string, text: string][] }) {
  return (
    <Tabs className="code-tabs">
      <TabList aria-label="The same as code" className="tabs">
        {texts.map(([language]) => (
          <Tab key={language} id={language} className="tab">
            {language}
          </Tab>
        ))}
      </TabList>
      {texts.map(([language, text]) => (
        <TabPanel key={language} id={language} className="code-panel">
          <pre id={`code-${language}`} tabIndex={0} role="region" aria-label={`${language} code`}>
            {text}
          </pre>
          <CopyButton text={text} label={`Copy as ${language}`} />
        </TabPanel>
      ))}
    </Tabs>
  );
}
